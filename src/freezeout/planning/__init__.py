"""What a schedule saves, predicted from measured costs; which schedule saves what is wanted."""

from freezeout.planning.paper_estimate import densenet_costs, paper_saving
from freezeout.planning.planned import Plan
from freezeout.planning.predicted import predicted_saving
from freezeout.planning.solve import PlanSpacing, plan

__all__ = ["Plan", "PlanSpacing", "densenet_costs", "paper_saving", "plan", "predicted_saving"]
