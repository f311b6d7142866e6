"""Where people and programs meet the verbs: the command line, HTTP for programs, the studio for people."""
