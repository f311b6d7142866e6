// What every page of the studio does beyond htmx. Each idea has a module of its own.
