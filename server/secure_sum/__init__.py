"""The server's side of a secure sum: what nodes send is masked, and only the sum of a round can be opened.

Reading order: `numbers` (public ones, by how many nodes there are), `roster` (who takes part in a run, once and for
good) and `members` (how nodes come into it), `running_sum` and `collection` (what becomes of masked replies), `legs`
(whom to ask what until the sum is open, without IO), `step` (from the opened sum to the next adapter), `files` (what a
crash leaves), `opening` (drives one sum over Flower's Grid), `rounds` (those of a run), `deployment` (makes these for a
server's run), `history` (what happened, for whoever watches). The mathematics is in `shared/secure_sum`.
"""
