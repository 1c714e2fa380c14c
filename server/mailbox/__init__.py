"""The messages between a run and its nodes: Flower's own, in a file that the run's process and the gateway share.

Flower's SuperLink keeps nodes, their presence and runs. Its way for messages costs a dozen requests a node and round,
each with a dozen statements to its database; here a message is one row, and the process that needs it reads it.

In reading order: `database` (the file), `mailbox` (questions, and the replies to them), `signatures` (whether a request
is the node's own), `fleet_messages` (answers the requests of Flower's Fleet API that are about messages).
"""
