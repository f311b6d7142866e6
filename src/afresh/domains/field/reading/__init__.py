"""Files of physical fields, of several formats, to `afresh.domains.field.fields.Fields`."""
