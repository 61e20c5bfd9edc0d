"""Source of own parts that several tests write into a file of a user's own."""

RISK_AND_SCORES = """
class Diagonal:
    def __init__(self, factors, floor=0.0):
        self.factors, self.floor = factors, floor

    def estimate(self, returns):
        variance = np.nanvar(returns, axis=0) + self.floor
        return np.zeros((returns.shape[1], self.factors)), variance


def halved(scores, mask, by=2.0):
    return scores / by
"""
