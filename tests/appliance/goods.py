"""Goods of the price list that tests sell."""

TEA, TEA_FEN = "4891028705949", 700
NOODLES, NOODLES_FEN = "6901715291209", 200
