"""An official game small enough to be read, and folders that hold such."""

from __future__ import annotations

from typing import Any

PROBLEM = """(define (problem p) (:init (atLocation agent1 loc_bar_0)
  (receptacleType Desk_bar_1 DeskType) (receptacleAtLocation Desk_bar_1 loc_bar_1)
  (receptacleType Bed_bar_1 BedType) (receptacleAtLocation Bed_bar_1 loc_bar_2)
  (objectType Book_bar_1 BookType) (pickupable Book_bar_1) (inReceptacle Book_bar_1 Desk_bar_1)
  (objectAtLocation Book_bar_1 loc_bar_1) (canContain BedType BookType))
 (:goal (and (exists (?r - receptacle) (exists (?o - object)
   (and (inReceptacle ?o ?r) (objectType ?o BookType) (receptacleType ?r BedType)))))))"""
GAME: dict[str, Any] = {
    "pddl_domain": "(define (domain alfred))",
    "grammar": '{"task": [{"rhs": "Your task is to: put a book in bed."}]}',
    "pddl_problem": PROBLEM,
    "solvable": True,
    "walkthrough": ["go to desk 1", "take book 1 from desk 1", "go to bed 1", "move book 1 to bed 1"],
}
PLACE = "pick_and_place_simple-Book-None-Bed-301"
HEAT = "pick_heat_then_place_in_recep-Apple-None-Fridge-4"
