"""The pages of scheduling: thin functions of an authorised look-up, one call downward and a template."""
