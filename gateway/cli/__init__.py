"""`gateway functions|deployments|queues|keys` over the API, `keys|store|bootstrap` in the store.

Exit codes: 0 success; 1 failure, with the reason in one line on standard error; 2 wrong command
line, also a file that cannot be read; 130 after Ctrl-C. A value that no key can have is a failure,
whether the API or the command finds it. Results go to standard output, as a table, or as JSON with
``--json``; everything else, including progress, goes to standard error.
"""
