"""Is the saving that is predicted before a run the one that a clock then measures?"""
