"""Methods × seeds as tracked runs, and one table of what they differ in."""
