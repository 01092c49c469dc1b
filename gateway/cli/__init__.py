"""`gateway functions|deployments|queues` on the API, and `gateway store` on the store itself.

Exit codes: 0 done; 1 it failed, for a reason told in one line on standard error; 2 the command line
is wrong. Results go to standard output, as a table or with ``--json`` as JSON; everything else,
progress included, to standard error.
"""
