import tinybilevel as tb


def test_results_print_in_a_few_lines():
    toy = tb.problems.toy(biased=True)
    for result in (
        tb.bounds.proposition_3_1(toy, K=5),
        tb.bounds.certificate(toy),
        tb.bounds.lemma_3_2(toy),
        tb.bounds.theorem_3_3(toy, K=5, iterations=30),
        tb.bounds.proposition_3_6(toy),
        tb.bounds.rates(toy, Ks=range(1, 20)),
        tb.bounds.measure(toy),
    ):
        assert len(repr(result)) < 900
        assert repr(result).count("\n") <= 3


def test_an_array_shows_its_size_and_range():
    text = repr(tb.bounds.theorem_3_3(tb.problems.toy(), K=5, iterations=30))
    assert "lam=<31 × 2: " in text
    assert text.startswith("AverageGradient(average=<30: ")
    assert "assumptions=<4 of 4 hold>" in repr(tb.bounds.proposition_3_1(tb.problems.toy(), K=5))
