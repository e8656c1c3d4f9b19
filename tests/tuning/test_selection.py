"""Who runs again and who wins: pure cases. The curves are written by hand; nothing is trained."""

from collections.abc import Callable

from gapwise.tuning.assignment import Finished
from gapwise.tuning.selection import chosen_again, median_epoch, median_index, standings

MakeFinished = Callable[..., Finished]


def test_the_best_of_each_rate_run_again(make_finished: MakeFinished) -> None:
    specialist = make_finished({"0.0": 0.9, "0.9": 1.2}, number=0, cost=1.05)
    robust = make_finished({"0.0": 1.0, "0.9": 1.1}, number=1, cost=1.05)
    beaten = make_finished({"0.0": 0.95, "0.9": 1.15}, number=2, cost=1.04)
    assert chosen_again([specialist, robust, beaten], "mae", top_k=1, cap=9) == [0, 1]


def test_those_best_at_most_rates_come_first_and_the_cap_cuts_the_rest(make_finished: MakeFinished) -> None:
    once = make_finished({"0.0": 0.5, "0.5": 2.0, "0.9": 2.0}, number=0, cost=0.1)
    twice = make_finished({"0.0": 1.0, "0.5": 1.0, "0.9": 1.0}, number=1, cost=0.9)
    assert chosen_again([once, twice], "mae", top_k=1, cap=9) == [1, 0]
    assert chosen_again([once, twice], "mae", top_k=1, cap=1) == [1]


def test_a_tie_of_places_goes_to_the_lower_objective_and_then_to_the_earlier_trial(make_finished: MakeFinished) -> None:
    runs = [make_finished({"0.0": 1.0}, number=number, cost=cost) for number, cost in ((2, 0.5), (1, 0.5), (0, 0.7))]
    assert chosen_again(runs, "mae", top_k=3, cap=9) == [1, 2, 0]


def test_pruned_and_failed_trials_never_run_again(make_finished: MakeFinished) -> None:
    pruned = make_finished({"0.0": 0.1}, number=0, state="pruned")
    failed = make_finished({}, number=1, state="failed")
    complete = make_finished({"0.0": 9.9}, number=2)
    assert chosen_again([failed, pruned, complete], "mae", top_k=3, cap=9) == [2]
    assert chosen_again([failed, pruned], "mae", top_k=3, cap=9) == []


def test_a_trial_that_another_s_record_answered_takes_no_place_of_its_own(make_finished: MakeFinished) -> None:
    best, next_best = make_finished({"0.0": 0.1}, number=1), make_finished({"0.0": 0.2}, number=2)
    twin = best._replace(assignment=best.assignment._replace(number=3), outcome=best.outcome._replace(duplicate_of=1))
    assert chosen_again([best, next_best, twin], "mae", top_k=2, cap=9) == [1, 2]


def test_a_score_that_grows_with_quality_is_ranked_downwards(make_finished: MakeFinished) -> None:
    worse = make_finished({"0.0": 0.6}, number=0, metric="corr")
    better = make_finished({"0.0": 0.7}, number=1, metric="corr")
    assert chosen_again([worse, better], "corr", top_k=1, cap=9) == [1]
    rows = standings([worse, better], "corr", 1)["0.0"]
    assert [row.source for row in rows] == [1, 0]


def test_a_standing_is_the_mean_and_deviation_over_seeds(make_finished: MakeFinished) -> None:
    seeds = [make_finished({"0.3": value}, number=n, source=7, seed=n) for n, value in enumerate((1.0, 2.0, 3.0))]
    (row,) = standings(seeds, "mae", 3)["0.3"]
    assert (row.arm, row.source, row.mean, row.sd, row.seeds) == ("prlf", 7, 2.0, 1.0, 3)


def test_one_seed_has_no_deviation(make_finished: MakeFinished) -> None:
    assert standings([make_finished({"0.3": 1.0})], "mae", 1)["0.3"][0].sd == 0.0


def test_seeds_that_failed_leave_the_others_standing(make_finished: MakeFinished) -> None:
    runs = [
        make_finished({}, number=0, source=7, state="failed"),
        make_finished({"0.3": 1.0}, number=1, source=7),
        make_finished({"0.3": 0.5}, number=2, arm="late_fusion", source=0),
    ]
    rows = standings(runs, "mae", 1)["0.3"]
    assert [(row.arm, row.seeds) for row in rows] == [("late_fusion", 1), ("prlf", 1)]


def test_one_lucky_seed_does_not_beat_a_configuration_that_finished_all(make_finished: MakeFinished) -> None:
    runs = [
        make_finished({"0.3": 0.1}, number=0, source=7, seed=1),
        make_finished({}, number=1, source=7, seed=2, state="failed"),
        *(make_finished({"0.3": 0.9}, number=2 + seed, source=8, seed=seed) for seed in (1, 2)),
    ]
    assert [row.source for row in standings(runs, "mae", 2)["0.3"]] == [8, 7]


def test_equal_means_are_ordered_by_name_so_that_the_winner_does_not_depend_on_who_ended_first(
    make_finished: MakeFinished,
) -> None:
    runs = [make_finished({"0.3": 1.0}, number=n, source=source) for n, source in enumerate((9, 3))]
    assert [row.source for row in standings(runs, "mae", 1)["0.3"]] == [3, 9]
    assert standings(runs, "mae", 1) == standings(runs[::-1], "mae", 1)


def test_no_finished_run_gives_an_empty_table(make_finished: MakeFinished) -> None:
    assert standings([], "mae", 1) == {}
    assert standings([make_finished({}, state="failed")], "mae", 1) == {}


def test_the_lower_median_seed_ships_and_ties_go_to_the_first() -> None:
    assert median_index([3.0, 1.0, 2.0]) == 2
    assert median_index([4.0, 1.0, 2.0, 3.0]) == 2
    assert median_index([1.0, 1.0, 1.0]) == 1
    assert median_index([5.0]) == 0


def test_a_refit_trains_the_median_of_the_best_epochs_rounded_up_and_at_least_one() -> None:
    assert median_epoch([9, 3, 5]) == 5
    assert median_epoch([4, 8]) == 6
    assert median_epoch([4, 5]) == 5
    assert median_epoch([0]) == 1


def test_who_was_dropped_at_a_rate_comes_last_there_and_nowhere_else(make_finished: MakeFinished) -> None:
    best = [make_finished({"0.0": 0.1, "0.9": 0.1}, number=n, source=1, seed=n) for n in (0, 1)]
    failed_once = [make_finished({"0.0": 0.5, "0.9": 0.5}, number=2, source=2, seed=0)]

    table = standings([*best, *failed_once], "mae", 2, {("prlf", 1): {"0.9": 2}})

    assert [row.source for row in table["0.0"]] == [1, 2]
    assert [row.source for row in table["0.9"]] == [2, 1]


def test_a_standing_says_how_probably_it_is_the_best(make_finished: MakeFinished) -> None:
    runs = [make_finished({"0.0": 1.0, "0.9": 1.0}, number=n, source=n) for n in (0, 1)]

    table = standings(runs, "mae", 1, chances={"0.0": {("prlf", 0): 0.75, ("prlf", 1): 0.25}})

    assert [row.probability_best for row in table["0.0"]] == [0.75, 0.25]
    assert [row.probability_best for row in table["0.9"]] == [None, None]


def test_the_front_and_the_best_of_each_rate_take_turns_until_the_cap(make_finished: MakeFinished) -> None:
    runs = [make_finished({"0.0": 1.0 + n, "0.9": 1.0 + n}, number=n, cost=n) for n in range(6)]
    assert chosen_again(runs, "mae", top_k=3, cap=9, front=[5, 4]) == [0, 5, 1, 4, 2]
    assert chosen_again(runs, "mae", top_k=3, cap=3, front=[5, 4]) == [0, 5, 1]
    assert chosen_again(runs, "mae", top_k=2, cap=9, front=[1, 0]) == [0, 1], "each once"
