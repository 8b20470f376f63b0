"""The replication protocol: the only room that knows it; both legs read through it.

From the left come a server's packets, to the right go framed, verified and
classified events. Nothing here knows what a leg does with them.
"""
