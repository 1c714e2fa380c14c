"""The node's side: `vault` holds data and trains, `app` is the Flower ClientApp of simulations."""
