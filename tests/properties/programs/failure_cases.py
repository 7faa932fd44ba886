"""Small programs about what is raised, where, and what no longer happens then."""

from __future__ import annotations

__all__ = ["FAILURES"]

# Bodies of ``program(s, n, xs, t)``; ``risky('a')`` raises, ``risky('b')`` does not.
FAILURES = r"""
### a failure stops what follows
    risky("a")
    log("never")
    return 1
### a failure stops the change of an argument
    x = risky("a")
    xs.append("never")
    t["never"] = 1
    return x
### a failure stops the change of the module
    global TOTAL
    x = risky("a")
    TOTAL += 1
    SEEN.append("never")
    return x
### a failure stops plain code
    x = ask(risky("a"))
    emit("never")
    return x
### the first failure is the one that is raised
    x = risky("a")
    y = [] [n]
    return [x, y]
### a failure of what nobody reads is raised
    risky("a")
    return 1
### a failure within an expression is raised in its place
    x = int(ask("b"))
    log("never")
    return x
### an error of types is that of Python
    x = "a" + rate(s)
    SEEN.append("never")
    return x
### an index out of range is that of Python
    x = ask(s)[99]
    log("never")
    return x
### a missing key is that of Python
    x = {"a": 1}[ask(s)]
    return x
### unpacking too many is that of Python
    a, b = ask(s)
    return [a, b]
### an attribute that is missing is that of Python
    return ask(s).nothing
### calling what cannot be called is that of Python
    x = ask(s)
    return x()
### a failure is caught where it is made
    try:
        x = risky("a")
    except ValueError as error:
        x = str(error)
    return x
### a failure is not caught by a later try
    x = risky("a")
    try:
        y = x + "b"
    except ValueError:
        y = "wrong"
    return y
### what was made in a try stays after it
    ys = []
    try:
        ys.append(ask("b"))
        ys.append(risky("a"))
        ys.append(ask("c"))
    except ValueError:
        ys.append("caught")
    return ys
### what was assigned in a try stays as it was at the failure
    x = "before"
    try:
        x = ask("b")
        risky("a")
        x = "never"
    except ValueError:
        pass
    return x
### else is run where nothing failed
    try:
        x = risky("b")
    except ValueError:
        x = "caught"
    else:
        x += ask(s)
    finally:
        log("finally")
    return x
### finally is run before the failure leaves
    try:
        x = risky("a")
    finally:
        log("finally")
    return x
### a return in finally takes the place of the failure
    ys = [1]
    try:
        risky("a")
    finally:
        return [ys, ask(s)]
### a return in a try is evaluated before its finally
    ys = [ask(s)]
    try:
        return [ys[0], ys]
    finally:
        ys[0] = "changed"
### a failure is raised anew
    try:
        risky("a")
    except ValueError:
        log("seen")
        raise
### a failure is the cause of another
    try:
        ask(risky("a"))
    except ValueError as error:
        raise Stop(ask(s)) from error
### a failure in a handler is raised
    try:
        risky("a")
    except ValueError:
        x = risky("a")
    log("never")
    return x
### the name of a caught failure is gone
    try:
        risky("a")
    except ValueError as error:
        x = str(error)
    return [x, error]
### a loop goes on after a failure
    ys = []
    for x in ["a", "b", "a", "c"]:
        try:
            y = risky(x)
        except ValueError:
            continue
        ys.append(y)
        if len(ys) > 1:
            break
    else:
        ys.append("else")
    return ys
### suppressed failures end the body alone
    ys = []
    with contextlib.suppress(ValueError):
        ys.append(ask("b"))
        risky("a")
        ys.append("never")
    return ys
### a context is left after the calls in it
    with scope("c") as name:
        x = ask(name)
        log(x)
    emit(x)
    return x
### a context may be left by return
    with scope("c"):
        for x in xs:
            with managed(x) as y:
                return [x, y]
"""
