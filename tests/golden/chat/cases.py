"""The small cases: (template, context). Each is rendered by Jinja2 as transformers sets it up."""

CTX = {
    "xs": [3, 1, 2], "s": "Hello World", "u": "Grüße, 世界!", "e": [], "n": None, "t": True, "f": 1.5, "i": 7,
    "d": {"b": 1, "a": {"x": [1, 2, {"y": "z"}]}, "items": "own"}, "sp": "  a b  \n",
    "us": [{"n": "bob", "g": 2, "z": {"k": 1}}, {"n": "Al", "g": 1, "z": {"k": 3}}, {"n": "cy", "g": 2, "z": {"k": 2}}],
    "q": "it's \"q\"\n\t\u00e9\u200b\U0001f600", "big": 1e20, "neg": -7, "h": "<a href='x'>&\"</a>",
}

EXPR = r"""
1 + 2 * 3|(1 + 2) * 3|7 // 2|-7 // 2|7 // -2|7 % 3|-7 % 3|7 % -3|7 / 2|2 ** 10|2 ** -1|2 ** 3 ** 2|-2 ** 2|7.5 // 2|-7.5 % 2|1e3|1_000|0x1f|0b101|0o17|1.0|1.5e-7|1e16|123456789012345678.0|0.1 + 0.2|1 / 3|5 * 1.0|1e22|-0.0|True + 1
1 < 2 < 3|1 < 3 < 2|1 == 1.0|'a' < 'b'|[1, 2] < [1, 3]|(1, 2) == (1, 2)|[1] == (1,)|1 != 2|'a' in 'abc'|'x' not in 'abc'|1 in [1]|'b' in d|not 1|not not 1|1 and 0|0 or 'x'|1 and 'y'|none or 3|not 1 == 2|1 in xs and 2 in xs
'a' ~ 1 ~ none ~ true ~ 1.0|'a' 'b' "c"|'a' * 3|3 * 'ab'|[1] * 3|[1] + [2]|(1,) + (2,)|'x' + 'y'|'%s-%d' % ('a', 5)|'%05.2f|%x|%-4s>' % (3.14159, 255, 'a')|'%(a)s' % {'a': 1}|'%s' % xs|'%%' % ()|'%r' % 'a'|'%+d % d' % (3, 4)|'%c' % 65|'%e' % 12345.678|'%g' % 0.0001
'a' if 1 else 'b'|'a' if 0|'a' if 0 else 'b' if 0 else 'c'|[1, 'a', none, true, 1.5]|(1,)|()|(1, 2)|{}|{'a': 1, "b": [1]}|[[], {}, ()]|{'a': {'b': {}}}|{1: 2, none: 3, true: 4}
xs[0]|xs[-1]|xs[9]|xs[1:]|xs[::-1]|xs[:-1]|xs[-2:]|xs[::2]|xs[5:]|xs[-9:9]|s[0]|s[-1]|s[2:5]|s[::-1]|u[1]|u[2:4]|u[::-1]|u[-3:]|u[100:]|s[::3]|s[5:2:-1]|d.b|d['b']|d.a.x[2].y|d['a']['x'][0]|d.items|d['items']|d.nope|d['nope']|xs.0|xs.5|d.a.x.2.y
q|[q]|u|[u]|'\n\t\\\'\"\x41\u00e9\101\q'|"\U0001f600"|['\x00\x7f\x1b']|"it's"|["it's", 'a"b', 'a\'b"c']
n|t|f|i|e|d.a|xs|none|nope|nope is defined|n is none|big|neg|[1e20, 1.0, -0.0]
s.upper()|s.lower()|s.title()|s.swapcase()|s.capitalize()|sp.strip()|sp.lstrip()|sp.rstrip()|[sp.strip('\n ')]|'xxaxx'.strip('x')|s.split()|s.split('o')|s.split('o', 1)|s.split('o', maxsplit=1)|'a,b,,c'.split(',')|' a  b '.split(' ')|'a b c'.split(none, 1)|'a b c'.rsplit(' ', 1)|' a b  c '.rsplit(none, 1)|'a--b--c'.rsplit('--')|'a\nb\r\nc\n'.splitlines()|'a\nb'.splitlines(true)|s.startswith('He')|s.startswith(('x', 'H'))|s.endswith('ld')|s.endswith('l', 0, 4)|s.find('o')|s.find('zz')|s.rfind('o')|s.find('o', 5)|u.find('世')|s.index('W')|s.index('zz')|s.count('l')|s.count('')|s.replace('l', 'L')|s.replace('l', 'L', 1)|'aaa'.replace('aa', 'b')|'ab'.replace('', '-')|s.join(['a', 'b'])|', '.join(xs)|','.join(['x'])|','.join('abc')
'12'.isdigit()|'a1'.isalnum()|'ab'.isalpha()|'é'.isalpha()|' '.isspace()|''.isspace()|'AB'.isupper()|'aB'.islower()|'x'.isnumeric()|'½'.isnumeric()|'½'.isdigit()|'²'.isdigit()|'²'.isdecimal()|'ab'.center(7, '*')|'ab'.center(6)|'abc'.center(6, '.')|'ab'.ljust(5, '.')|'ab'.rjust(5)|'-5'.zfill(5)|'abc'.zfill(5)|'abc'.removeprefix('a')|'abc'.removesuffix('bc')|'abc'.removeprefix('x')|'a=b=c'.partition('=')|'a=b=c'.rpartition('=')|'abc'.partition('x')
'{} {}'.format(1, 'a')|'{0}{1}{0}'.format(1, 2)|'{a:>5}|{b:<5}|'.format(a=1, b='x')|'{:.2f} {:05d} {:,}'.format(3.14159, 42, 1234567)|'{!r}'.format('a')|'{{}}'.format()|'{:^7}'.format('ab')|'{:x} {:#b}'.format(255, 5)|'{:+}'.format(5)|'{:%}'.format(0.25)|'{0.b}'.format(d)|'{0[b]}'.format(d)|'{'.format()|'{5}'.format(1)|'{:10.3}'.format('abcdef')|'{:e}'.format(1234.5)|'{:08.3f}'.format(-3.14159)
d.get('b')|d.get('zz')|d.get('zz', 5)|d.keys()|d.values()|d.a.items()|d.keys() | list|d.a.items() | list|{'a': 1}.items() | list|dict(a=1, b=2)|dict({'a': 1}, b=2)|dict([('a', 1)])|d.a.copy()|[1, 2, 1].count(1)|[1, 2].index(2)|[1].append(2)|{}.update({})|xs.pop()|d.pop is defined|s.__class__|d._x|d.clear()
range(3)|range(3) | list|range(1, 10, 3) | list|range(5, 0, -2) | list|range(0)|range(10)[2:4]|range(10)[-1]|range(5) | length|range(10 ** 9)|9223372036854775807|-9223372036854775807 - 1
loop|loop is defined|namespace(a=1).a|namespace(a=1).b|namespace({'a': 2}).a|cycler(1, 2).next()|joiner('|')()|raise_exception('boom')|raise_exception(5)|nope.x|nope['x']|nope()|nope + 1|d.nope.x|n.x|n.x.y|n + 'a'|'a' + n|'a' + 1|1 + 'a'|xs + 'a'|5 % 0|5 // 0|5 / 0|[] < {}|1 in 5|1 in none|1 in 'a'|x.y.z|-'a'|{}[[]]|{[]: 1}|for|s.nope()|s.upper(1)|s.split('')|xs()|'%d' % 'a'|'%s %s' % 'a'|'%s' % ('a', 'b')|(1, 2)[5]|s['upper']()|nope == nope2|nope in [1]|1 in nope|nope ~ 'x'|nope < 1
nope | default('x')|n | default('x')|n | default('x', true)|'' | d('y', boolean=true)|0 | default(3, true)|s | length|u | length|xs | count|d | length|none | length|5 | length|nope | length|xs | first|xs | last|e | first|e | last|s | first|s | last|xs | sum|us | sum('g')|us | sum(attribute='g', start=10)|xs | max|xs | min|['b', 'A', 'c'] | max|['b', 'A'] | min|e | max|us | max(attribute='g')|us | map(attribute='n') | list|us | map(attribute='z.k') | join('-')|us | map(attribute='zz', default='-') | list|['a', 'b'] | map('upper') | list|[1.4, 2.6] | map('round') | list|['1', '2'] | map('int') | sum|xs | map('string') | join|xs | map('nope') | list|[[1, 2], [3]] | map('length') | list|['a-b', 'c'] | map('replace', '-', '_') | list
xs | sort|xs | sort(reverse=true)|['b', 'A', 'c'] | sort|['b', 'A', 'c'] | sort(case_sensitive=true)|us | sort(attribute='n') | map(attribute='n') | list|us | sort(attribute='g,n') | map(attribute='n') | list|us | sort(attribute='z.k', reverse=true) | map(attribute='n') | list|[1, 'a'] | sort|d | dictsort|{'b': 1, 'A': 2} | dictsort|{'b': 1, 'A': 2} | dictsort(true)|{'b': 1, 'A': 2} | dictsort(by='value', reverse=true)|d | items | list|[1, 2, 1, 'a', 'A'] | unique | list|['a', 'A'] | unique(case_sensitive=true) | list|xs | reverse | list|s | reverse|u | reverse|xs | list|s | list|d | list|xs | join(', ')|us | join(', ', attribute='n')|[1, none, 'a'] | join('|')|nope | join|'abc' | join('.')
xs | select | list|[0, 1, ''] | select | list|xs | select('gt', 1) | list|xs | reject('odd') | list|us | selectattr('g', 'equalto', 2) | map(attribute='n') | list|us | selectattr('g', '==', 1) | list | length|us | rejectattr('g', 'eq', 2) | map(attribute='n') | list|us | selectattr('zz', 'defined') | list|us | selectattr('zz') | list|us | selectattr('n', 'in', ['bob', 'cy']) | map(attribute='n') | list|us | selectattr('z.k', '>', 1) | list | length|xs | batch(2) | list|xs | batch(2, 0) | list|range(7) | slice(3) | list|range(7) | slice(3, 'x') | list|us | groupby('g')|us | groupby('g') | map(attribute='0') | list|us | groupby('n', case_sensitive=true) | map(attribute=0) | list
s | upper|s | lower|'hello wORLD-foo (bar' | title|'ÉCOLE été' | lower|'straße' | upper|'straße' | capitalize|'ǆ' | title|s | trim|[sp | trim]|'xxaxx' | trim('x')|s | replace('o', '0')|s | replace('o', '0', 1)|5 | replace(5, 6)|s | capitalize|'a\nb\n\nc' | indent|'a\nb\n\nc' | indent(2, true)|'a\nb\n\nc' | indent(2, blank=true)|'a\nb' | indent('> ')|'a\nb\n' | indent|h | escape|h | e|h | safe|5 | string|[1] | string|none | string|nope | string|s | wordcount|'a' | center(5)|'%s and %s' | format('a', 'b')|'%(x)s' | format(x=1)|'foo bar baz qux' | truncate(9)|'foo bar baz qux' | truncate(9, true)|'foo bar baz qux' | truncate(11)|'foo bar baz qux' | truncate(9, false, '..', 0)|'a b/c?é' | urlencode
'5' | int|'5.7' | int|'x' | int|'x' | int(9)|'0x1f' | int(base=16)|'ff' | int(0, 16)|'101' | int(base=2)|5.9 | int|true | int|none | int|nope | int|' 12 ' | int|'1_000' | int|'1e3' | int|'5' | float|'x' | float|'x' | float(1.5)|'inf' | float|'1e5' | float|none | float|-5 | abs|-5.5 | abs|'a' | abs|2.5 | round|3.5 | round|2.675 | round(2)|2.1 | round(0, 'ceil')|2.9 | round(method='floor')|1234 | round(-2)|5 | round|1234.5 | round(-2)|42.55 | round(1, 'floor')
d | tojson|xs | tojson|s | tojson|q | tojson|u | tojson|n | tojson|t | tojson|f | tojson|h | tojson|d | tojson(indent=2)|d | tojson(indent='\t')|d | tojson(separators=(',', ':'))|d | tojson(sort_keys=true)|u | tojson(ensure_ascii=true)|q | tojson(ensure_ascii=true)|e | tojson(indent=4)|{} | tojson(indent=4)|[[], {}] | tojson(indent=1)|{1: 2, none: 3, true: 4, 1.5: 5} | tojson|(1, 2) | tojson|big | tojson|1e-7 | tojson|1.0 | tojson|nope | tojson|range(3) | tojson|xs | map('string') | tojson|'\x00\x1f\x7f\b\f' | tojson|d | tojson(2)|'inf' | float | tojson|d | tojson(indent=0)|d | tojson(indent=2, separators=(', ', ': '))
s is string|xs is sequence|d is mapping|d is sequence|xs is iterable|5 is iterable|n is none|n is not none|nope is undefined|nope is not defined|1 is integer|true is integer|1.0 is float|true is number|'1' is number|true is boolean|1 is boolean|true is true|1 is true|false is false|s.upper is callable|range is callable|s is callable|4 is even|3 is odd|9 is divisibleby 3|9 is divisibleby(4)|1 is eq 1|1 is equalto(2)|1 is ne 2|1 is lt 2|1 is gt 2|2 is ge 2|2 is le 1|1 is in xs|1 is in(xs)|n is sameas none|1 is sameas true|'a' is lower|'A' is upper|'upper' is filter|'nope' is filter|'odd' is test|s is nope|xs | map('upper') is sequence|d.items() is iterable|d.nope is defined|d.b is defined and d.b == 1|not s is string|s is string and s is not mapping|nope is none|'a' is sequence|(xs | map('string')) is iterable|'a' is escaped|(range(2)) is sequence|s is not string or 1|1 is not 1|n is defined|loop is undefined
xs | nope|5 is nope2|a.b.c|(1|2)|{'a': 1}['a']|{'a': 1}.a|[1, 2][0]|'abc'[1]|(1, 2)[1]|xs[i - 7]|xs['0']|xs['a']|s.a|-i | abs|-5 | abs|(-5) | abs|i | string | length|i is integer and f is float|[x for x in xs]|lambda|1 +|(|)|]|{|1 = 2|1 if|s | |s is|'a|"a|$|!|a b|{{ 1 }}|1;2|s.|[1,,2]|[1,]|(,)|{1}|{'a'}|f(a=1, 2)|f(**{}, *[])|f(*[1], **{})|dict(**{'a': 1})|dict(a=1, a=2)|range(*[1, 3]) | list|'a'.upper().lower()|s.split()[0].lower()|s.split()[-1][0]|xs | first + 1|1 + xs | first|not xs | length == 3|'a' ~ 'b' == 'ab'|1 + 2 ~ 3|'a' ~ 1 + 2|2 * 3 ~ 4|'x' in s ~ 'x'|1 if t else 2 ~ 3
"""

STATEMENTS = [
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in xs %}{{ loop.previtem }},{{ loop.nextitem }};{% endfor %}",
    "{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }};{% endfor %}",
    "{% for x in e %}x{% else %}none{% endfor %}", "{% for x in xs %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for x in xs if x > 9 %}a{% else %}b{% endfor %}", "{% for k, v in d.items() %}{{ k }}{{ v }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}",
    "{% for c in u %}{{ c }}.{% endfor %}", "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for x in 5 %}{% endfor %}",
    "{% for x in nope %}a{% else %}b{% endfor %}", "{% for x in none %}a{% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% else %}z{% endfor %}",
    "{% for x in [1] %}{% continue %}{% else %}z{% endfor %}", "{% for x in [1] %}{% break %}{% else %}z{% endfor %}",
    "{% set a = 1 %}{% for x in xs %}{% set a = x %}{{ a }}{% endfor %}{{ a }}",
    "{% for x in xs %}{{ a }}{% set a = x %}{% endfor %}", "{% if t %}{% set a = 5 %}{% endif %}{{ a }}",
    "{% set ns = namespace(v=0) %}{% for x in xs %}{% set ns.v = ns.v + x %}{% endfor %}{{ ns.v }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}", "{% set d.x = 1 %}", "{% set nope.x = 1 %}",
    "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}",
    "{% set a %}x{{ 1 }}{% endset %}[{{ a }}]", "{% set a | upper | trim %} x{{ s }} {% endset %}[{{ a }}]",
    "{% set a %}{% set b = 1 %}{% endset %}{{ b }}", "{% with a = 1, b = i %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}aac{% endfilter %}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{{ s }}{% endcall %}",
    "{% macro m() %}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(5) }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 1 %}{{ m() }}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q }}",
    "{% for x in xs %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% for x in xs %}{{ m is defined }}{% endfor %}{% macro m() %}{% endmacro %}",
    "{% macro m() %}{{ loop }}{% endmacro %}{% for x in [1] %}[{{ m() }}]{% endfor %}", "{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for x in xs %}{{ loop(x) }}{% endfor %}", "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}", "a {%- raw -%} b {%- endraw -%} c", "{% raw %}\n a\n{% endraw %}\nb",
    "a{# c #}b", "a {#- c -#} b", "  {# c #}\nb", "a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a\n  {%+ if t %}\n  b\n  {% endif +%}\nc\n\n",
    "a  {%- if t -%}  b  {%- endif -%}  c", "a \n {{- 1 -}} \n b", "  {{ 1 }}\n", "  {% set x = 1 %}  \nq", "x {% if t %} y{% endif %}\n\nz",
    "\n\n{% if t %}\n\na{% endif %}", "\r\na\rb\n", "{% if t %}a\n{% endif %}\n", "{%if t%}a{%endif%}", "{%-if t-%} a {%-endif-%}", "{% if t %}  {% if t %}\n x{% endif %}{% endif %}",
    "{% if n %}a{% elif t %}b{% else %}c{% endif %}", "{% if n %}a{% elif e %}b{% else %}c{% endif %}", "{% if n %}a{% endif %}",
    "{% if t %}{{ 1 | nope }}{% endif %}", "{% if n %}{{ 1 | nope }}{% endif %}ok", "{{ 1 | nope if n }}ok", "{{ '{{' }}{{ '}}' }}{{ '%}' }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {}}}}",
    "{% generation %}a{% set z = 1 %}{% endgeneration %}{{ z }}", "{% print 1 %}", "{% print 1, 2 %}", "{{ 1, 2 }}", "{% if %}{% endif %}", "{% for %}{% endfor %}", "{% endif %}", "{% if t %}", "{% nope %}",
    "{{", "{%", "{#", "{{ }}", "{% %}", "a{b}c{", "{ {", "{% set %}", "{% set a %}", "{% set true = 1 %}", "{% break %}", "{% for x in xs %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% do 1 %}", "{% for x in xs: %}{{ x }}{% endfor %}", "{% if t: %}a{% endif %}",
    "{% set x = 5 %}{% macro m() %}{{ x }}{% endmacro %}{% with x = 6 %}{{ m() }}{{ x }}{% endwith %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}", "{% set j = joiner() %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}",
    "{% set g = xs | map('string') %}{{ g | list }}{{ g | list }}", "{% set g = xs | select %}{{ g | first }}{{ g | first }}{{ 2 in g }}{{ g | list }}",
    "{% for x in xs %}{% for y in xs %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for x in xs %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in xs -%}\n  {{ x }}\n{%- endfor %}", "{% set a = 'x' %}{% set a = a ~ 'y' %}{% for i in range(3) %}{% set a = a ~ i %}{% endfor %}{{ a }}",
    "{% set m = messages | default([]) %}{{ m | length }}", "{{ xs | length > 2 and s is string }}", "{{ us[0].z.k + us[-1]['z']['k'] }}", "{{ us | map(attribute='n') | map('upper') | sort | join(',') }}",
    "{% set ns = namespace(s='') %}{% for i in range(2000) %}{% set ns.s = ns.s + 'abc' %}{% endfor %}{{ ns.s | length }}{{ ns.s[5995:] }}",
    "{% set ns = namespace(a='', b='') %}{% for i in range(600) %}{% set ns.a = ns.a + 'abcd' %}{% set ns.b = ns.a + 'X' %}{% endfor %}{{ ns.a[-5:] }}{{ ns.b[-5:] }}{{ ns.a | length }}",
]


def cases():
    out = []
    for line in EXPR.strip("\n").split("\n"):
        out += [("{{ " + e + " }}", CTX) for e in line.replace(" | ", "\0").split("|") for e in [e.replace("\0", " | ")]]
    return out + [(t, CTX) for t in STATEMENTS]
