"""What other code can see of an enhanced function holds values: the oracle is plain Python."""

from __future__ import annotations

import pytest

import ember_xcs as xcs


@xcs.host
def ask(text):
    return f"<{text}>"


def lambda_of_any_arguments(text):
    found = [ask(text), ask(text + "!")]
    return (lambda *args: args)(*found)


def lambda_of_any_keywords(text):
    found = {"a": ask(text), "b": ask(text + "!")}
    return (lambda **kwargs: kwargs)(**found)


def lambda_of_both(text):
    found = [ask(text)]
    return (lambda first, *args, **kwargs: (first, args, kwargs))(text, *found, b=ask(text)), found


def lambda_within_a_comprehension(text):
    return [(lambda *args: args)(*pair) for pair in [[ask(text), ask(text)]]]


def defaults(text):
    def nested(a, b=ask(text), c=(ask(text), 1)):  # noqa: B008  (it is the question)
        return a, b, c

    return nested.__defaults__, nested(1)


def keyword_defaults(text):
    def nested(*, a=ask(text), b=[ask(text)]):  # noqa: B006, B008  (it is the question)
        return a, b

    return nested.__kwdefaults__, nested()


def lambda_defaults(text):
    nested = lambda a=ask(text): a  # noqa: B008, E731  (it is the question)
    return nested.__defaults__, nested()


def method_of_a_local_class(text):
    class Kept:
        def both(self, *args, **kwargs):
            return args, kwargs

    return Kept().both(*[ask(text)], b=ask(text))


def guarded_generator(text):
    def each(*args):
        try:
            yield args
        finally:
            pass

    return list(each(*[ask(text), ask(text)]))


@pytest.mark.parametrize(
    "program",
    [
        lambda_of_any_arguments,
        lambda_of_any_keywords,
        lambda_of_both,
        lambda_within_a_comprehension,
        defaults,
        keyword_defaults,
        lambda_defaults,
        method_of_a_local_class,
        guarded_generator,
    ],
)
def test_the_result_is_that_of_plain_python(program):
    assert xcs.jit.enhanced(program)("a") == program("a")


def test_what_a_lambda_is_given_is_kept_outside_as_values():
    kept = []

    def program(text):
        kept.append((lambda *args: args)(*[ask(text)]))

    xcs.jit.enhanced(program)("a")
    assert kept == [("<a>",)]


def test_a_closure_that_is_returned_holds_values():
    def program(text):
        found = ask(text)

        def nested():
            return found

        return nested

    made = xcs.jit.enhanced(program)("a")
    assert [cell.cell_contents for cell in made.__closure__] == ["<a>"]


@xcs.host
def refuse(text):
    raise ValueError(text)


def list_made_in_a_body(text):
    try:
        found = ["first"]
        found.append(ask(text))
        found += [refuse(text)]
        found.append("later")
        found[0] = ask(text)
        found.insert(0, "earlier")
    except ValueError:
        return found


def dict_made_in_a_body(text):
    try:
        found = {"a": 1}
        found["b"] = ask(text)
        found["c"] = refuse(text)
        found["a"] = ask(text)
        found.update(d=ask(text))
        del found["b"]
    except ValueError:
        return found


def set_made_in_a_body(text):
    try:
        found = {1}
        refuse(text)
        found.add(2)
    except ValueError:
        return found


@pytest.mark.parametrize("program", [list_made_in_a_body, dict_made_in_a_body, set_made_in_a_body])
def test_after_a_failure_containers_are_what_they_were_at_the_failing_call(program):
    result, expected = xcs.jit.enhanced(program)("a"), program("a")
    assert result == expected
    assert list(result) == list(expected)


def add_all(found, texts):
    for text in texts:
        found.append(text)


def list_changed_by_a_helper(text):
    try:
        found = ["first"]
        refuse(text)
        add_all(found, ["later", "latest"])
    except ValueError:
        return found


def test_what_a_helper_changed_after_a_failing_call_is_taken_back():
    f = xcs.jit.enhanced(list_changed_by_a_helper)
    assert [f("a") for _ in range(5)] == [["first"]] * 5
