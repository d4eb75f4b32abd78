"""What the command line is made of beside its verbs: the terminal, schemas of configs, a first project."""
