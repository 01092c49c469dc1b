"""`gateway functions|deployments|queues|keys` on the API, and `keys|store|bootstrap` on the store.

Exit codes: 0 done; 1 it failed, for a reason told in one line on standard error; 2 the command line
is wrong. A value that no key can have is a failure, whoever finds it, the API or the command.
Results go to standard output, as a table or with ``--json`` as JSON; everything else, progress
included, to standard error.
"""
