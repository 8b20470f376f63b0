"""What a daemon shows on its port: metrics, health, and a page that a person can read.

`server` speaks HTTP, bounded in every way; `site` answers each path; `account` is what a daemon
tells of itself, `peer` asks the other daemon for the same; `render` makes the page of both, with
`plot`'s drawing in it. Nothing here knows a leg: each gives a function that makes its account.
"""
