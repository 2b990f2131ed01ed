"""Real PostgreSQL servers: a look into a running one (`memory`), and throw-away ones to be driven (`cluster`)."""
