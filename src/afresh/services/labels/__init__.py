"""What models, data and works are made of, under which licences, and at what cost, in the forms that others read."""
