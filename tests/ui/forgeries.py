"""What somebody who wants to pass for another visitor writes into the headers of a request."""

VICTIM, ATTACKER, PROXY = "203.0.113.7", "198.51.100.66", "10.9.9.9"
# What somebody who wants to be the victim sends; a proxy adds the attacker's address as a line of its own, or
# at the end of the last line.
FORGERIES = {
    "one name": [("X-Forwarded-For", VICTIM)],
    "two lines": [("X-Forwarded-For", VICTIM), ("X-Forwarded-For", VICTIM)],
    "two on a line": [("X-Forwarded-For", f"{VICTIM}, {VICTIM}")],
    "an empty line after": [("X-Forwarded-For", VICTIM), ("X-Forwarded-For", "")],
    "an empty hop after": [("X-Forwarded-For", f"{VICTIM},")],
    "only commas": [("X-Forwarded-For", f"{VICTIM},,,,")],
    "spaces and tabs": [("X-Forwarded-For", f"  {VICTIM}\t, \t")],
    "other cases": [("x-fOrWaRdEd-fOr", VICTIM)],
    "with a port": [("X-Forwarded-For", f"{VICTIM}:443")],
    "written as IPv6": [("X-Forwarded-For", f"::ffff:{VICTIM}")],
    "in brackets": [("X-Forwarded-For", f"[::ffff:{VICTIM}]:443")],
    "the proxy's own address after": [("X-Forwarded-For", f"{VICTIM}, {PROXY}")],
    "loopback after": [("X-Forwarded-For", f"{VICTIM}, 127.0.0.1")],
    "private after": [("X-Forwarded-For", f"{VICTIM}, 10.0.0.1, 192.168.1.1")],
    "no address after": [("X-Forwarded-For", f"{VICTIM}, unknown, _hidden, proxy.internal")],
    "broken brackets after": [("X-Forwarded-For", f"{VICTIM}, [::1, ]")],
    "quotes": [("X-Forwarded-For", f'"{VICTIM}"')],
    "a thousand hops": [("X-Forwarded-For", ", ".join([VICTIM] * 1000))],
    "other headers": [
        ("Forwarded", f"for={VICTIM}"),
        ("X-Real-IP", VICTIM),
        ("True-Client-IP", VICTIM),
        ("CF-Connecting-IP", VICTIM),
        ("X-Client-IP", VICTIM),
    ],
    "letters that are none": [("X-Forwarded-For", f"{VICTIM}, \xff\xfe")],
}
