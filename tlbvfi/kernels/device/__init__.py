"""The code that runs on the card. Imports Triton, and is imported by what starts it only."""
