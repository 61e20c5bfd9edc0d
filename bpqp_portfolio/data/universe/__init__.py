"""What is known of the names of a universe by day: closes, sectors, index weights, exposures.

``market.py`` has closes, returns and membership as arrays; the others read a user's table or are
computed from prices alone.
"""
