"""What a run leaves behind, and finding it again.

``artifact.py`` saves and loads the model for the days after it, ``results.py`` the tables of a
report; ``tracked.py`` finds both in MLflow; ``timing.py`` counts seconds by stage.
"""
