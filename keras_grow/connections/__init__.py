"""How connections are judged and chosen: arrays in, arrays out, no layer and no model."""
