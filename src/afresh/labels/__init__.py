"""What a model, a data set or a work is made of, under which licences, and what it cost: one record, written in the
forms that others read."""
