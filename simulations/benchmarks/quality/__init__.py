"""How good federated private training is on real sites, beside what anybody would compare it with."""
