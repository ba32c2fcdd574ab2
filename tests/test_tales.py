import hashlib
import re
import sys
from itertools import islice
from math import sqrt

import pytest

import tales
from tales.__main__ import main
from tales.grammar import WORD, FixedText, Grammar, Pick, Repeat, Rule
from tales.interpreters import Reader
from tales.stories import GRAMMAR, STORY
from tales.words import GIRLS

SAMPLE = [tales.story(0, index) for index in range(3000)]


@pytest.fixture(scope="module")
def parses():
    return [tales.parse(story.text) for story in SAMPLE]


def rules_and_parts():
    return [
        (rule, part) for rule in GRAMMAR.rules.values() for body in rule.bodies for part in body
    ]


def count_derivations(text, parts, position, known):
    """Count every way to tell a text, trying all options of all choices, without leads."""
    if not parts:
        return int(position == len(text))
    part, rest = parts[0], parts[1:]
    if isinstance(part, Rule):
        return sum(count_derivations(text, body + rest, position, known) for body in part.bodies)
    if isinstance(part, Pick):
        options = enumerate(part.menu.texts(part.form))
        found = [(i, option) for i, option in options if text.startswith(option, position)]
        return sum(
            count_derivations(
                text, rest, position + len(option), {**known, part.name: (part.menu, i)}
            )
            for i, option in found
        )
    option = part.text if isinstance(part, FixedText) else None
    if isinstance(part, Repeat):
        menu, i = known[part.name]
        option = menu.texts(part.form)[i]
    if not text.startswith(option, position):
        return 0
    return count_derivations(text, rest, position + len(option), known)


def test_the_corpus_never_changes_by_itself():
    text = "\n\n".join(story.text for story in SAMPLE[:100])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "650a7198c0213de0"


def test_stories_are_random_access():
    assert list(islice(tales.stories(0, start=7), 3)) == SAMPLE[7:10]
    assert tales.story(1, 7) != SAMPLE[7]


def test_parsing_recovers_plot_and_bits(parses):
    for story, parse in zip(SAMPLE, parses, strict=True):
        assert parse.plot == story.plot
        assert parse.bits == pytest.approx(story.bits, abs=1e-9)
        assert tales.bits(story.text) == parse.bits


def test_picks_name_their_span_of_the_text(parses):
    for story, parse in zip(SAMPLE[:200], parses[:200], strict=True):
        ends = [0, *(pick.end for pick in parse.picks)]
        for pick, end in zip(parse.picks, ends, strict=False):
            assert story.text[pick.start : pick.end] == pick.text
            assert pick.start >= end


def test_a_story_has_exactly_one_derivation():
    for story in SAMPLE[:150]:
        assert count_derivations(story.text, [STORY], 0, {}) == 1


def test_no_option_of_a_menu_begins_another():
    for _, part in rules_and_parts():
        if isinstance(part, Pick):
            texts = sorted(part.menu.texts(part.form))
            for first, second in zip(texts, texts[1:], strict=False):
                rest = second.removeprefix(first)
                assert rest and (rest == second or rest[0].isalpha() or rest[0] == "-"), second


def test_no_lead_of_a_rule_begins_another():
    for index in range(300):
        reader = Reader(SAMPLE[index].text).read(STORY)
        for name in ("plot", "habit"):
            leads = sorted(reader.wording(lead) for lead in GRAMMAR.rules[name].leads)
            for first, second in zip(leads, leads[1:], strict=False):
                assert not second.startswith(first)


def test_probabilities_of_all_stories_add_up_to_one():
    menus = {"animal": "fox, owl, hen", "name": "Lily, Tom"}
    rules = {"story": "\n- Once [x=animal.a] met [other animal.a]. [plot]\n"}
    plots = {"one": "The {x} ran.", "two": "[name] saw the {x}."}
    story = Grammar(menus, rules, {**plots, "two": "Then [name] saw."}).rules["story"]
    total, animals = 0.0, ["a fox", "an owl", "a hen"]
    for first in animals:
        for second in set(animals) - {first}:
            for end in (f"The {first.split()[1]} ran.", "Then Lily saw.", "Then Tom saw."):
                reader = Reader(f"Once {first} met {second}. {end}")
                story.apply(reader)
                total += 2**-reader.bits
    assert total == pytest.approx(1)


def test_whole_stories_pass():
    for story in SAMPLE[:200]:
        assert tales.grade(story.text) == tales.Grade(True, len(story.text), story.plot, "", "")


def test_a_strange_word_breaks_where_it_stands():
    for story in SAMPLE[:100]:
        for match in list(re.finditer(r"\w+", story.text))[::7]:
            broken = story.text[: match.start()] + "xyzzy" + story.text[match.end() :]
            grade = tales.grade(broken)
            assert (grade.passed, grade.kind) == (False, "grammar")
            # within a pick of several words ("a boat", "hot chocolate") the first may be reported
            assert match.start() - 20 < grade.position <= match.start()
            assert "found" in grade.message


def test_the_message_says_what_was_expected():
    text = next(story.text for story in SAMPLE if story.plot == "fence")
    start = text.index("I say ") + len("I say ")
    color = re.match(r"[\w-]+", text[start:])[0]
    other = "red" if color != "red" else "blue"
    grade = tales.grade(text[:start] + other + text[start + len(color) :])
    assert grade.position == start
    assert grade.kind == "consistency"
    assert grade.plot == "fence"
    assert f"at character {start}: expected '{color}', found '{other}'" in grade.message


@pytest.mark.parametrize("plot", sorted(GRAMMAR.rules["plot"].labels))
def test_another_name_is_inconsistent(plot):
    text = next(story.text for story in SAMPLE if story.plot == plot)
    hero = re.search(r"(?:named|called) (\w+)", text)[1]
    last = text.rindex(hero)
    stranger = "Tom" if hero in GIRLS else "Lily"
    grade = tales.grade(text[:last] + stranger + text[last + len(hero) :])
    assert (grade.kind, grade.position) == ("consistency", last)


def test_another_pronoun_is_inconsistent():
    text = next(story.text for story in SAMPLE if story.plot == "promise")
    match = re.search(r"And (she|he) ", text)
    pronoun = "he" if match[1] == "she" else "she"
    grade = tales.grade(text[: match.start(1)] + pronoun + text[match.end(1) :])
    assert (grade.kind, grade.position) == ("consistency", match.start(1))


def test_another_name_is_inconsistent_where_sentences_could_start_otherwise():
    match = next(filter(None, (re.search(r"[.!] (\w+) felt ", s.text) for s in SAMPLE)))
    stranger = "Tom" if match[1] in GIRLS else "Lily"
    grade = tales.grade(match.string[: match.start(1)] + stranger + match.string[match.end(1) :])
    assert (grade.kind, grade.position) == ("consistency", match.start(1))


def test_a_word_used_twice_in_a_list_is_inconsistent():
    text = "Once, in a red house of wood and "
    assert tales.grade(text + "wood, there").kind == "consistency"
    assert tales.grade(text + "paper, there").kind == "unfinished"


@pytest.mark.slow
def test_a_truncated_story_is_unfinished():
    for story in SAMPLE[:60]:
        for size in range(0, len(story.text), 5):
            grade = tales.grade(story.text[:size])
            assert (grade.kind, grade.position) == ("unfinished", size)


def test_text_after_the_end_is_a_break():
    story = SAMPLE[0]
    grade = tales.grade(story.text + " And more.")
    assert (grade.kind, grade.position) == ("grammar", len(story.text))
    with pytest.raises(ValueError, match=f"at character {len(story.text)}: expected 'the end"):
        tales.bits(story.text + "\n")


def test_entropy_agrees_with_the_mean_bits():
    measured = tales.entropy(seed=0, num_stories=3000)
    assert measured.num_stories == 3000
    assert 0 < measured.standard_error < 0.01 * measured.bits_per_byte
    bits = [story.bits for story in SAMPLE]
    mean = sum(bits) / len(bits)
    error = sqrt(sum((b - mean) ** 2 for b in bits)) / len(bits)
    assert abs(measured.bits_per_story - mean) < 4 * error
    assert measured.bytes_per_story == sum(len(s.text.encode()) for s in SAMPLE) / len(SAMPLE)


def test_the_corpus_is_broad():
    words = {w.lower() for story in SAMPLE for w in WORD.findall(story.text)}
    assert len(words) >= 1500
    assert len({story.plot for story in SAMPLE}) >= 20


def test_every_option_of_every_menu_is_told(parses):
    told = {(pick.menu, pick.text) for parse in parses for pick in parse.picks}
    used = {part.menu.name for _, part in rules_and_parts() if isinstance(part, Pick)}
    assert used == set(GRAMMAR.menus)
    for menu in GRAMMAR.menus.values():
        forms = {p.form for _, p in rules_and_parts() if isinstance(p, Pick) and p.menu is menu}
        for i, item in enumerate(menu.items):
            assert any((menu.name, menu.texts(form)[i]) in told for form in forms), item


def test_words_lists_what_stories_say():
    words = tales.words()
    for story in SAMPLE[:300]:
        text = re.sub(r"'s\b", "", story.text.lower())
        assert set(WORD.findall(text)) <= words


def test_the_prose_is_clean():
    for story in SAMPLE:
        text = story.text
        assert text.isascii() and text.startswith("Once") and text[-1] in ".!?"
        assert not re.search(r"  |\n\n| \n|\n | [-,.!?]|[,.!?]{2}(?<!\.\.)", text), text
        for paragraph in text.split("\n"):
            assert paragraph.count('"') % 2 == 0, paragraph
        for article, word in re.findall(r"\b([Aa]n?) (\w+)", text):
            vowel = word[0] in "aeiouAEIOU" and word != "ukulele" or word == "honest"
            assert (article.lower() == "an") == vowel, (article, word)


def test_the_command_line_grades_a_file(tmp_path, monkeypatch, capsys):
    file = tmp_path / "stories.txt"
    file.write_text(SAMPLE[0].text + "\n\n" + SAMPLE[1].text[:90] + "\n")
    monkeypatch.setattr(sys, "argv", ["tales", "--grade", str(file)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1: passed"
    assert lines[1].startswith("2: at character 90")
    assert lines[2] == "1 of 2 stories passed"
