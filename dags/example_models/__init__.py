"""The code of the example's model and data: what a Dag author brings along."""
