"""The words, rules and plots of the tales, as text; grammar.py explains the brackets and braces.

In a menu, words are separated by ", " and an irregular plural follows a slash; the first words are chosen about twice
as often as the last. In a rule, each alternative starts with "- ".
"""

GIRLS = (
    "Lily, Anna, Mia, Rosa, Ivy, Nora, Clara, Ella, Maya, Tilly, Poppy, Ada, Alice, Amy, Bella, "
    "Betty, Carmen, Cora, Dora, Edith, Elsa, Emma, Esther, Fern, Flora, Freya, Gina, Grace, Greta, "
    "Hanna, Hazel, Heidi, Ida, Iris, Jane, Josie, Judy, Kate, Lena, Lola, Lotte, Lucy, Mabel, "
    "Maria, Martha, Milly, Molly, Nell, Nina, Olive, Pam, Pearl, Penny, Polly, Rita, Ruby, Ruth, "
    "Sally, Sofia, Stella, Tess, Vera, Willa, Zoe"
)
BOYS = (
    "Tom, Ben, Sam, Max, Leo, Finn, Jack, Oscar, Hugo, Toby, Pip, Adam, Albert, Anton, Arlo, "
    "Basil, Bert, Bruno, Carl, Charlie, Danny, David, Eddie, Elmer, Emil, Eric, Felix, Frank, "
    "Fred, George, Gus, Hank, Harry, Henry, Ivan, Jasper, Joey, Jonas, Karl, Lars, Lenny, Linus, "
    "Louis, Luke, Marco, Martin, Milo, Moses, Ned, Nico, Noah, Otto, Paul, Pedro, Peter, Ralph, "
    "Ravi, Rufus, Simon, Theo, Tim, Victor, Walter, Wilbur"
)

MENUS = {
    "name": GIRLS + ", " + BOYS,
    "animal": (
        "rabbit, fox, hedgehog, mouse/mice, badger, otter, squirrel, bear, mole, duck, frog, "
        "goose/geese, toad, beaver, cat, dog, kitten, puppy, lamb, goat, pig, hen, owl, raccoon, "
        "panda, koala, elephant, lion, tiger, monkey, camel, donkey, pony, reindeer/reindeer, "
        "moose/moose, wolf/wolves, turtle, tortoise, penguin, seal, walrus, parrot, crow, robin, "
        "swan, stork, heron, pigeon, weasel, ferret, hamster, gopher, chipmunk, porcupine, skunk, "
        "kangaroo, wombat, lemur, sloth, zebra, giraffe, llama, yak, bison/bison, crocodile, "
        "lizard, hippo, rhino, peacock, rooster, turkey, calf/calves, piglet"
    ),
    "trait": (
        "brave, gentle, clever, curious, cheerful, shy, sleepy, honest, merry, patient, polite, "
        "proud, quiet, silly, thoughtful, tidy, stubborn, bold, careful, dreamy, eager, friendly, "
        "funny, generous, graceful, helpful, hopeful, jolly, kind, lazy, lively, lucky, messy, "
        "noisy, plump, playful, plucky, forgetful, fearless, grumpy, fussy, chatty, clumsy, "
        "nimble, scruffy, fluffy, tiny, young, old, tall, restless, sensible, serious, sweet, "
        "timid, wise, witty, barefoot, freckled, sturdy, adventurous, loyal, absent-minded, "
        "good-natured"
    ),
    "color": (
        "red, blue, green, yellow, orange, purple, pink, brown, black, white, gray, golden, "
        "silver, scarlet, violet, turquoise, crimson, copper, cream, lilac, amber, emerald, "
        "ivory, striped, spotted, checkered, maroon, sky-blue"
    ),
    "glad": (
        "happy, glad, pleased, proud, cheerful, delighted, merry, thankful, joyful, warm, "
        "hopeful, grateful, content, peaceful, excited, lucky, brave, jolly, light-hearted, "
        "tickled, overjoyed, sunny"
    ),
    "gloomy": (
        "sad, upset, gloomy, cross, worried, lonely, miserable, glum, unhappy, nervous, ashamed, "
        "sorry, grumpy, downhearted, anxious, tearful, blue, hopeless, small, puzzled, bothered, "
        "forlorn"
    ),
    "weather": (
        "sunny, rainy, windy, misty, bright, cloudy, breezy, gray, chilly, warm, fine, mild, "
        "drizzly, hazy, golden, quiet, blustery, cool, dewy, crisp, damp, still, sparkling, foggy"
    ),
    "scene": (
        "quiet, green, sunny, little, windy, sleepy, cozy, snug, hidden, leafy, grassy, busy, "
        "crooked, pretty, lonely, peaceful, mossy, shady, flowery, narrow, wide, rocky, sandy, "
        "dusty, muddy, misty, steep, secret, forgotten, famous, friendly, lovely, small, big, "
        "warm, cool, bright, tidy"
    ),
    "look": (
        "old, little, shiny, tiny, big, dusty, wooden, rusty, soft, round, crooked, pretty, "
        "painted, patched, polished, square, lumpy, wobbly, squeaky, creaky, heavy, fine, plain, "
        "fancy, smooth, bent, borrowed, secret, lopsided, enormous, handsome, curly, second-hand, "
        "worn-out, brand-new, homemade, antique, splendid, sturdy, dented, speckled, flowery, "
        "magnificent, ordinary, peculiar, precious, small, large, neat, muddy, glittering, "
        "beautiful, funny, cracked, wonderful, curious"
    ),
    "taste": (
        "sweet, sticky, crunchy, warm, fresh, juicy, ripe, sugary, crisp, tender, soft, creamy, "
        "spicy, tasty, delicious, tiny, golden, plump, buttery, dainty, fragrant, splendid, "
        "roasted, steaming, frosted, perfect, fluffy"
    ),
    "degree": (
        "very, rather, quite, a little, terribly, really, ever so, most, awfully, truly, "
        "dreadfully, extremely"
    ),
    "sound": (
        "thump, bang, clatter, rattle, squeak, crash, boom, hoot, howl, growl, whistle, rumble, "
        "splash, creak, buzz, hum, jingle, clang, tap, grunt, sneeze, roar, scratch, snore"
    ),
    "land": (
        "village, valley, forest, meadow, town, harbor, wood, farm, garden, orchard, glade, "
        "island, hamlet, dale, kingdom, park, hollow, marsh, grove, country, bay"
    ),
    "spot": (
        "mill, bridge, well, pond, barn, lighthouse, bakery, school, market, tower, windmill, "
        "station, library, fountain, gate, haystack, stable, dairy, forge, quarry, ferry, "
        "waterfall, stream, cave, hill, river, wall, hedge, beach, castle, cottage, chapel, inn, "
        "toy shop, post office, town hall, duck pond, bandstand, greenhouse, henhouse, beehive, "
        "signpost, crossroads, riverbank, cornfield, vineyard, playground, shipyard, pier, "
        "churchyard, schoolyard, scarecrow, rope swing, campfire, bus stop, sundial, hilltop, "
        "boathouse, woodshed, cabbage patch"
    ),
    "tree": (
        "oak, ash, elm, birch, beech, maple, willow, pine, fir, cedar, larch, holly, chestnut, "
        "walnut, poplar, alder, rowan, linden, sycamore, aspen, spruce, yew, juniper, cypress"
    ),
    "flower": (
        "daisy, tulip, rose, buttercup, bluebell, violet, daffodil, pansy, sunflower, poppy, "
        "marigold, primrose, snowdrop, crocus, foxglove, dandelion, iris, peony, dahlia, aster, "
        "lupin, orchid, geranium, petunia, carnation, clover, cowslip, hollyhock, zinnia, "
        "begonia, cornflower, forget-me-not"
    ),
    "bird": (
        "sparrow, wren, thrush, blackbird, lark, swallow, finch/finches, cuckoo, magpie, "
        "starling, nightingale, woodpecker, kingfisher, dove, jay, gull, bluebird, linnet, "
        "warbler, wagtail, goldfinch/goldfinches, quail, partridge, puffin, pelican, canary, "
        "hummingbird, swift"
    ),
    "insect": (
        "bee, ladybird, butterfly, beetle, cricket, moth, ant, snail, grasshopper, dragonfly, "
        "spider, caterpillar, bumblebee, worm, gnat, slug, centipede, firefly, glow-worm, earwig"
    ),
    "fruit": (
        "apple, pear, plum, cherry, strawberry, raspberry, peach, blueberry, blackberry, orange, "
        "lemon, fig, apricot, gooseberry, melon, banana, mango/mangoes, lime, quince, date, "
        "currant, cranberry, mulberry, elderberry, hazelnut, almond, acorn, tangerine, coconut, "
        "pineapple, papaya, kiwi, walnut, rosehip"
    ),
    "vegetable": (
        "carrot, turnip, potato/potatoes, cabbage, leek, onion, pumpkin, bean, radish, beet, "
        "parsnip, cucumber, tomato/tomatoes, lettuce, pepper, mushroom, cauliflower, artichoke, "
        "sprout, marrow, squash, swede, pea, lentil, celery root, yam"
    ),
    "bake": (
        "pie, cake, tart, pudding, muffin, bun, crumble, cookie, pancake, waffle, dumpling, "
        "turnover, strudel, scone, loaf/loaves, biscuit, pasty, cobbler"
    ),
    "drink": (
        "tea, milk, cocoa, cider, lemonade, water, buttermilk, mint tea, apple juice, hot "
        "chocolate, plum juice, ginger beer, barley water, honey milk, nettle tea, rose tea, "
        "malt, grape juice"
    ),
    "spice": (
        "cinnamon, honey, butter, vanilla, ginger, nutmeg, mint, sugar, cloves, lemon, almonds, "
        "caramel, thyme, rosemary, sage, basil, parsley, saffron, pepper, dill, toffee, cardamom, "
        "lavender, treacle, chocolate"
    ),
    "thing": (
        "kite, ball, drum, wagon, umbrella, lantern, ribbon, balloon, blanket, teapot, kettle, "
        "bucket, mitten, cape, sled, scooter, bicycle, bell, whistle, pencil, notebook, "
        "paintbrush, marble, feather, necklace, ring, key, purse, box, chest, jug, spoon, stool, "
        "cushion, quilt, puppet, doll, spinning top, clock, candle, mirror, comb, kerchief, "
        "parasol, satchel, rocking horse, jump rope, hoop, pillow, teacup, vase, lamp, fan, flag, "
        "wheelbarrow, saucepan, watering can, telescope, toy boat, toy train, music box, picture "
        "book, handkerchief"
    ),
    "clothes": (
        "scarf/scarves, hat, coat, cap, bonnet, apron, shawl, jacket, vest, cloak, sweater, "
        "shirt, bow tie, nightcap, raincoat, cardigan, waistcoat, dressing gown, beret, belt, "
        "sash, pinafore, hood, poncho, tunic, jumper"
    ),
    "small": (
        "button, bead, acorn, pebble, shell, feather, coin, thimble, cork, pin, leaf/leaves, "
        "twig, stamp, crumb, nail, needle, seed, nut, stick, spool, buckle, penny/pennies, bone, "
        "peg, hook, string, sock, pinecone, crayon, bottle, spring, paper clip, walnut shell, "
        "cotton reel, ticket, star"
    ),
    "furniture": (
        "bed, table, chair, cupboard, sofa, desk, dresser, wardrobe, bench, bookshelf, stove, "
        "piano, rug, bathtub, sink, door, armchair, ladder, basket, trunk, barrel, bunk, "
        "woodpile, cradle, mattress, curtain, washtub, hammock"
    ),
    "container": (
        "basket, bag, bowl, bucket, box, jar, sack, pail, tin, crate, barrel, cup, suitcase, "
        "wheelbarrow, tub, pot, hamper, crock, drawer, bathtub, kettle, trunk, jug, hatbox"
    ),
    "tool": (
        "hammer, spade, shovel, rake, broom, ladder, rope, saw, hoe, torch, ladle, rolling pin, "
        "pitchfork, fishing rod, net, mop, oar, crowbar, poker, walking stick, frying pan, "
        "trowel, wrench, pair of tongs, feather duster"
    ),
    "instrument": (
        "drum, flute, fiddle, trumpet, tuba, piano, harp, guitar, banjo, cello, horn, trombone, "
        "clarinet, bagpipe, accordion, oboe, xylophone, tambourine, mandolin, ukulele, whistle, "
        "bugle, concertina"
    ),
    "game": (
        "hide-and-seek, tag, marbles, hopscotch, leapfrog, checkers, pirates, catch, skittles, "
        "dominoes, charades, jacks, football, tug-of-war, knights, follow-the-leader, "
        "statues, snap, chess, horseshoes"
    ),
    "number": "three, four, five, six, seven, eight, nine, ten, eleven, twelve, twenty",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "material": (
        "wood, paper, straw, tin, clay, cardboard, reeds, bark, planks, barrels, old doors, "
        "driftwood, boxes, bamboo, cork, logs, leather, walnut shells"
    ),
    "moved": (
        "ran, walked, skipped, hopped, hurried, marched, trotted, tiptoed, scampered, strolled, "
        "raced, wandered, galloped, bounced, trudged, scurried, danced, dashed, rushed, paddled, "
        "waddled, crept, rolled, stamped, plodded, rambled, darted, bounded, ambled, zigzagged"
    ),
    "manner": (
        "quickly, slowly, quietly, carefully, bravely, gently, politely, softly, patiently, "
        "calmly, steadily, kindly, seriously, firmly, solemnly, grandly, briskly, gravely, "
        "boldly, lightly, sleepily, dreamily, stoutly, gracefully, properly, neatly, smartly, "
        "sensibly, modestly, loudly, stubbornly, wisely"
    ),
    "gladly": (
        "happily, merrily, cheerfully, gladly, blithely, brightly, proudly, eagerly, joyfully, "
        "gratefully, contentedly, heartily, playfully, cheerily, gleefully, thankfully, "
        "blissfully, noisily, sweetly, excitedly"
    ),
    "sadly": (
        "sadly, gloomily, glumly, nervously, anxiously, wearily, miserably, sorrowfully, crossly, "
        "bitterly, mournfully, faintly, hopelessly, feebly, shyly, tearfully, weakly, unhappily"
    ),
    "said": (
        "said, answered, replied, added, remarked, declared, announced, whispered, murmured, "
        "called, explained, observed, suggested, muttered, hummed, puffed, coughed, squeaked"
    ),
    "wailed": (
        "sighed, mumbled, sniffed, groaned, wailed, moaned, whimpered, sobbed, grumbled, gulped, "
        "croaked, cried, stammered, gasped, complained, whined"
    ),
    "cheered": (
        "cheered, laughed, giggled, chuckled, cried, sang, shouted, exclaimed, squealed, crowed, "
        "chirped, hooted, whooped, yelled, gasped, cackled, roared, twittered"
    ),
    "oh_no": (
        "Oh dear, Oh no, Dear me, Bother, Alas, Fiddlesticks, Goodness me, Crumbs, Good grief, "
        "Woe is me, Bless my whiskers, Thundering turnips, Mercy, Good heavens, Rats, Dear oh "
        "dear, Botheration, Heavens above"
    ),
    "oh_yes": (
        "Hooray, Hurrah, Well I never, My stars, Bless my buttons, Goodness, Leaping lizards, "
        "Jumping beans, Wonderful, Marvelous, Splendid, Oh joy, Yippee, Great acorns, Holy "
        "mackerel, How lovely, Upon my word, Bravo, Gracious, Glory be"
    ),
    "crockery": (
        "cup, bowl, plate, jug, teapot, vase, mug, saucer, pitcher, dish, jar, platter, flowerpot, "
        "soup bowl"
    ),
    "relative": (
        "mother, father, grandmother, grandfather, aunt, uncle, sister, brother, cousin, "
        "godmother, great-aunt, twin, niece, nephew, stepfather, great-uncle"
    ),
    "job": (
        "baker, miller, farmer, tailor, teacher, doctor, shepherd, gardener, carpenter, painter, "
        "blacksmith, sailor, cook, weaver, potter, cobbler, clockmaker, hatter, beekeeper, "
        "barber, mayor, librarian, juggler, toymaker, butcher, grocer, florist, woodcutter, "
        "lamplighter, dentist, nurse, pilot, plumber, dancer, magician, singer, poet, captain, "
        "printer, goldsmith, firefighter, mountaineer, detective"
    ),
}

RULES = {
    "story": """
- [opening] [habit]

[plot]
""",
    "opening": """
- Once upon a time, in [scene.a] [land], there lived [trait.a], [other trait] [kind=animal]
  [named|called] [hero=name].
- Once there was [trait.a] [kind=animal] [named|called] [hero=name], who lived
  [near|by|behind|beside] the [scene] [spot] and [sold|collected|counted|polished] [small.s].
- Once, when the [flower.s] and the [other flower.s] [were in bloom|began to bloom|had faded],
  [trait.a] [kind=animal] [named|called] [hero=name] [moved|came|sailed] to [scene.a] [land].
- Once, in [color.a] house of [material] and [other material], there lived [trait.a] [kind=animal]
  [named|called] [hero=name].
- Once, between the [scene] [spot] and the [scene] [other spot], lived [trait.a], [other trait]
  [kind=animal] [named|called] [hero=name].
""",
    "habit": """
- {hero} wore [color.a] [clothes] with [color]
  [buttons|pockets|sleeves|dots|patches|tassels|ribbons|bells|hearts|stars], and never
  [went out|traveled|slept] without [look.a] [thing].
- {hero}'s [relative], [trait.a] [job], smelled of [spice] and [other spice].
- On [day.s] {hero} played [game], and on [other day.s] [look.a] [instrument].
- {hero} liked nothing better than [drink] with [taste] [fruit] [bake.s].
- {hero} owned [number] [color] [thing.s], [look.a] [furniture] and [look.a] [tool].
- {hero} knew [a lot|nothing|all] about [insect.s], [bird.s] and [vegetable.s].
- In {hero}'s [garden|yard] grew [vegetable.s], [color] [flower.s] and [number] [taste]
  [other vegetable.s].
- {hero} was as [trait] as [animal.a] and as [other trait] as [other animal.a].
""",
    "scenery": """
- It was [weather.a], [other weather] [day], and the air smelled of [spice].
- The air was [weather], and [smelled|tasted] of [spice] and [flower.s].
- On the [tree] [trait.a] [bird] [sang|chattered|grumbled] about [insect.s] and [other insect.s].
- All around, the [color] [flower.s] nodded in the [weather] [wind|air|light].
""",
    "journey": """
- Off {hero.he} [moved], past the [scene] [spot], [manner] over the [other spot].
- {hero.He} [moved] [manner] through the [color] [flower.s] and the [color] [other flower.s].
- On the way {hero.he} [counted|met|greeted] [number] [bird.s] and [trait.a] [insect].
- The road [led|ran|wound] by the [scene] [spot], the [other spot] and [color.a] [thing] in
  [tree.a].
""",
    "sigh": """
- "[oh_no]!" [wailed] {hero} [sadly].
- Never before had {hero} been so [gloomy], so [other gloomy] and so [other gloomy].
- {hero} felt [degree] [gloomy] and [degree] [other gloomy].
- The {kind} sat down on [look.a] [furniture], [degree] [gloomy].
- Not even [taste] [fruit] [bake.s] could cheer {hero.him} up.
""",
    "goodnight": """
- {hero.He} went to bed [glad], and dreamed of [color] [thing.s] and [trait] [animal.s].
- That night the {kind} slept under [color.a] [clothes], [degree] [glad] and [other glad].
- Later the {kind} [moved] home [gladly], [humming|singing|whistling] about [taste] [fruit.s].
- Then there was [drink] for [everybody|everyone|all], with [taste] [fruit] [bake.s].
- And there were [taste] [bake.s] for [supper|tea], and [fruit] [other bake.s] for
  [breakfast|lunch].
""",
    "together": """
- From then on, they played [game] and [other game] every [day].
- Then they drank [drink] and ate [taste] [bake.s] until the [trait] [bird.s] fell asleep.
- They [moved] home [gladly], full of [taste] [fruit.s] and [taste] [bake.s].
- On [day] they wore [color] [clothes.s] and danced to [look.a] [instrument] and [look.a]
  [other instrument].
- And the [scene] [spot] rang with [songs|jokes|stories] about [animal.s], [thing.s] and [taste]
  [fruit.s].
""",
}

PLOTS = {
    "lost": """
{hero} could not find {hero.his} [color=color] [thing=thing]. {hero.He}
[looked|searched|hunted|peeked] behind the [look] [furniture] and under the [other furniture], but
[saw|found|met] only [small.s] and [trait.a] [insect]. [sigh]

"[Try|Look|Search] where you had it last," [said] [friend=other name] the [trait] [animal]. They
[moved] to the [spot]. There lay the {color} {thing}, with [color.a] [bird=bird]
[asleep|snoring|dreaming] on top of it.

"[oh_yes]! It can wait," [said] {hero}. They [ate|shared|nibbled] [taste] [fruit.s] until the {bird}
woke up. [goodnight]
""",
    "pie": """
{hero} had baked [taste.a] [filling=fruit] [bake=bake] and [meant|planned|hoped] to eat it alone.
The [look] [kitchen|oven|house] smelled of [spice] and [other spice].

Then [someone|somebody] knocked. It was [friend=other name], [trait.a] [animal], [degree] [gloomy].
"Since [day] I have had [nothing but|only] [vegetable.s]," [wailed] {friend}.

It was not a big {bake}. "[oh_no]," [said] {hero}, "[luckily|but] I have two [spoons|forks|plates]."
They ate it [gladly], while {friend} told a story about [trait.a] [job] and [number] [animal.s].
Half {filling.a} {bake} and a story is a lot. [together]
""",
    "promise": """
{hero} had promised some [gift=fruit.s] to [friend=other name] the [trait] [animal], who was in bed
with a [cold|cough|sore toe|fever]. [journey]

"[Come|Stay|Stop] and play [game=game]," [said] [other name], [trait.a] [animal].

{hero} loved {game}, but [said] [manner], "First I must bring {friend} the {gift.s}." And {hero.he}
[moved] on, though the [spot] smelled of [taste] [bake.s].

{friend} sat [waiting|reading|sneezing] in [color.a] [clothes]. "My {gift.s}! You did not forget!"
[cheered] {friend}. By [day] they were both playing {game}. [together]
""",
    "race": """
{hero} was the slowest runner for [number] miles. The fastest was [rival=other name], [trait.a],
[other trait] [animal]. "The [color=color] [prize=thing] will be mine," [said] {rival}.

They started at the [scene] [spot], on [weather.a] [day]. {rival} [shot|flew|raced] ahead,
[stopped|paused] for [taste] [fruit=fruit.s], ate [number], and
[fell asleep|began to snore|nodded off] under [tree.a]. {hero} [plodded|puffed|panted] on [manner],
step by step, past the {fruit.s}, past the snores, and won the {color} {prize}.

"[oh_no]!" [wailed] {rival} [sadly]. "You may [borrow|have|use] it on [day.s]," [said] {hero}
[manner]. [goodnight]
""",
    "thunder": """
{hero} was afraid of thunder. One [weather] night it [rumbled|growled|roared] like [trait.a]
[animal], and {hero.he} [crept|crawled|dived] under the [look] [den=furniture] with {hero.his}
[color=color] [toy=thing]. [sigh]

Someone [tapped|knocked|scratched] [manner] at the door. It was [friend=other name], [trait.a]
[animal] in a wet [color] [clothes]. "Is there room under the {den}?" [wailed] {friend}.

There was, and there were [taste] [fruit] [bake.s]. At every boom they [shouted|yelled|called],
"[oh_yes]!" Soon the thunder felt [degree] [gloomy], and [went away|left|gave up]. When the sun came
up, only the {color} {toy} was still awake. [together]
""",
    "seed": """
{hero} planted one [look] seed in [color.a] [pot=container], and wanted [look.a] [plant=vegetable]
by [day].

Every morning {hero.he} gave it [drink] and played it the [instrument]. Nothing
[grew|happened|came up]. [sigh]

"[Wait|Rest|Be patient]," [said] [friend=other name] the [trait] [animal]. "Even [animal.s] start
out small." So they waited, and played [number] games of [game]. And one [weather] [day] the {plant}
was as big as [look.a] [furniture]! {hero} pulled, {friend} pulled, and [trait.a] [insect=insect]
pulled. Pop! "[oh_yes]!" [cheered] the {insect}. They ate {plant} soup for [number] days.
[goodnight]
""",
    "birthday": """
{hero} woke up on {hero.his} birthday, and nobody [remembered|knew|cared]. [one=other name] the
[trait] [animal] only said, "Rather [weather] today." [two=other name] the [trait] [animal] [moved]
by with [color.a] [container] and said [nothing|not a word] at all. [sigh]

But at home the [look] [furniture] giggled. "Surprise!" [cheered] {one}. "Surprise!" [cheered]
{two}, and fell out of the [other furniture]. There was [taste.a] [fruit] cake with [number] [color]
candles, and [look.a] [thing].

"We [nearly|almost] burst," [said] {two}, "like [balloons|bubbles|frogs]." [together]
""",
    "broken": """
{hero} broke the [color=color] [cup=crockery] of [friend=other name] the [trait] [animal]. There it
lay, in [number] pieces, beside [look.a] [furniture]. Nobody had [seen|heard|noticed].

{hero} could blame [trait.a] [insect], or the wind. But it [felt|was] like [swallowing|eating]
[small.a]. "It was me," {hero.he} [wailed] at last.

"[oh_no]! I broke [look.a] [thing] once," [said] {friend}, "and hid it in [container.a]." So they
mended the {color} {cup} with [taste] [fruit] [jam|jelly|glue]. It leaked [degree] badly, and they
planted [flower.s] in it. [together]
""",
    "noise": """
{hero} heard noises from the [scene] [spot]: [sound.a], [other sound.a] and [other sound.a]. "It is
a monster," [wailed] [friend=other name] the [trait] [animal], "with [number] [color]
[heads|teeth|tails]!"

They took [look.a] [tool] and [look.a] [other tool], and [moved] there [manner]. [scenery]

It was [player=other name], [trait.a] [animal], learning to play the [horn=instrument]. "I only know
one song," [wailed] {player}, "and it is [degree] [gloomy]."

"[oh_yes]! So are we, without music," [said] {friend}. {hero} beat time with the [look] [furniture],
and {player} played the {horn}. It still sounded like a monster, but [degree] [glad]. [together]
""",
    "kite": """
{hero} was flying [color=color.a] kite on [weather.a] [day], when the wind [threw|blew|hung|tossed]
it into [tree=tree.a]. [sigh]

[one=other name] the [trait] [animal] [jumped|climbed|reached], and got [look.a] [small] in the
[ear|nose|tail]. [two=other name] the [trait] [animal] threw [look.a] [stuck=thing]. Now {stuck.a}
was in the {tree} too.

"[Do you want|Would you like] them down?" asked [color.a] [bird=bird], and [untied|freed|dropped]
both. "[oh_no]! Why did you not [help|start|speak] [before|sooner|earlier]?" asked {hero}.

"Nobody [asked|invited] me," [said] the {bird}. So they asked it to [tea|supper|lunch], with [taste]
[bake.s], and it sat on the {color} kite. [goodnight]
""",
    "bridge": """
{hero} met [friend=other name] the [trait] [animal] on [scene.a], [other scene] bridge. {hero}
carried [look.a] [container] of [taste] [mine=fruit.s], and {friend} pushed [look.a] [container] of
[yours=vegetable.s].

"Go back," [said] {hero}. "You go back," [said] {friend} [manner]. There they [stood|stayed] in the
[weather] wind, [degree] [gloomy], until the [trait] [bird.s] went to bed.

"Do you like {mine.s}?" {hero} [wailed] at last. "With {yours.s}," [said] {friend}. They ate
{mine.s} and {yours.s} until both loads were as light as [small.s], and [nobody|neither] could
[remember|say|tell] who had been so [cross|stubborn|proud]. [together]
""",
    "scarf": """
{hero} was knitting [color=color.a] scarf for [friend=other name], [trait.a], [other trait]
[animal]. [scenery]

On [day] the {color} wool [ran out|was gone|was finished]. {hero} [looked|searched|rummaged] in
[look.a] [furniture] and [look.a] [container], but found only [small.s]. So {hero.he} unpicked
{hero.his} own [end=other color] [clothes] and knitted on, [manner].

"It is half {color} and half {end}," [wailed] {hero} [sadly].

"[oh_yes]! Two scarves in one!" [cheered] {friend}. It was so long that {friend} wore the {color}
end, {hero} wore the {end} end, and they [walked|skated|danced|marched] side by side. [together]
""",
    "moon": """
{hero} wanted to touch the moon. {hero.He} put [look.a] [furniture] on [look.a] [other furniture],
[color.a] [container] on top, and climbed up [manner]. Then [everything|it all] fell down. [sigh]

"[Come|Walk|Step] this way," [said] [friend=other name] the [trait] [animal], and filled [look.a]
[tub=container] with [rain|well|pond] water. There was the moon, [degree] round and [taste]. {hero}
touched it, and it [giggled|wobbled|wriggled].

"[oh_yes]! It is [wet|ticklish|cold]!" [cheered] {hero}. They carried the {tub} home [manner]. By
[morning|breakfast] the moon was gone, so they watered the [color] [flower.s] and the [color]
[other flower.s]. [together]
""",
    "swap": """
{hero} was tired of [color.a] [first=thing], and wanted [want=instrument.a]. [one=other name] the
[trait] [animal] [liked|loved|needed] the {first} and gave [look.a] [second=other thing] for it.
[two=other name] the [trait] [animal] [liked|loved|needed] the {second} and gave [color.a]
[third=clothes] for it.

[journey] At the [scene] [spot] sat [three=other name], [trait.a] [animal], [degree] cold. "[oh_no]!
I would give my {want} for something warm," [wailed] {three}.

So {three} got the {third}, and {hero} got the {want}. {hero} played [manner] until {one}, {two} and
{three} [danced|clapped|sang]. [goodnight]
""",
    "nest": """
{hero} came upon [trait.a] baby [bird=bird] under [tree.a]. "Where is your nest?" {hero.he} asked
[manner].

"From my nest I see [color=color] [flower=flower.s]," [wailed] the {bird}, "and [look.a]
[mark=thing]."

They [tried|climbed|asked] [other tree.a]: no {flower.s}, only [trait.a] [insect]. They
[tried|climbed|asked] [other tree.a]: no {mark}, only [small.s]. [sigh] Then, behind the [scene]
[spot], stood [other tree.a], and by it the {color} {flower.s} and the {mark}.

"[oh_yes]!" [cheered] the {bird}'s mother. "I have [called|looked|searched] since [day]." She gave
{hero} [color.a] feather and [number] [taste] [fruit.s]. [goodnight]
""",
    "concert": """
{hero} wished to play the [horn=instrument] in the band of the [members=animal.s]. "Not yet," [said]
[leader=other name] the [trait] [animal]. "You sound like [trait.a] [animal] in [container.a]."
[sigh]

So {hero} practiced [manner] every [day] by the [scene] [spot], among [trait] [crowd=insect.s].

On the night of the concert the [other instrument] had a [cold|cough|toothache|fever]. "[oh_no]! Who
else can play?" [wailed] {leader}. {hero} [took|lifted|fetched] the {horn} and played [manner], as
if only {crowd.s} were [there|listening|awake]. The {members.s} threw [color] [flower.s], and the
{crowd.s} clapped the longest. [goodnight]
""",
    "boat": """
{hero} built [look.a] [color=color] boat of [material] and [other material]. {hero.He} and
[friend=other name] the [trait] [animal] wanted to sail to the [scene] [spot]. [scenery]

Halfway, {friend} got wet [feet|knees|socks]. "[oh_no]! A leak!" [wailed] {friend}. They
[stuffed|plugged|filled] it with [color.a] [clothes], and with [small.s], but
[still|slowly|steadily] the {color} boat sank.

"Give me the [fruit] [lunch=bake]," [said] {hero}, and pushed the [taste] {lunch} into the hole.
{hero} had baked it, so it was [degree] hard. It held! "[oh_yes]! Never learn to cook," [cheered]
{friend}. [together]
""",
    "letter": """
{hero} missed [friend=other name] the [trait] [animal], who had moved to [scene.a] [land]. So
{hero.he} wrote a letter with [look.a] [thing]: "Dear {friend}, the [color] [flower.s] are out, and
I have nobody to play [game=game] with." Soon [trait.a] [bird] [carried|took|flew] it away.

No answer came for [number] [days|weeks], only [trait.a] [insect].

Then [somebody|someone] knocked. It was {friend}, with [color.a] [container] and [look.a] [thing].
"I [wanted|tried|meant] to write back," [said] {friend}, "but I [walk|run|pack] faster than I
spell." And they played {game} until the [bird.s] [slept|yawned|snored]. [goodnight]
""",
    "market": """
{hero} went to market for [count=number] [first=fruit.s], [second=vegetable.a] and [color=color.a]
[third=thing]. So as not to forget, {hero.he} sang [on the way|all the way|at every step], [manner]:
"{count.cap} {first.s}, {second.a} and {color.a} {third}!"

Near the [spot] [friend=other name], [trait.a] [animal] in [color.a] [clothes], jumped out from
behind [tree.a]. "Boo!" The song was [gone|lost|forgotten].

"I know how it goes," [said] {friend}, and [hummed|whistled] it [gladly]. {hero} joined in, and word
by word it came back: "{count.cap} {first.s}, {second.a} and {color.a} {third}!"

{hero} brought home everything. "[oh_yes]!" [cheered] {hero.his} [relative]. "And where is the
[look] [container]?" [goodnight]
""",
    "lantern": """
It was [degree] late when {hero} started home from the [scene] [spot], and then {hero.his} [color]
lantern went out. The dark was full of noises: [sound.a], [other sound.a] and [other sound.a].

"[Hello|Good evening|Excuse me]," [said] [trait.a] voice. It was [guide=other name], [trait.a]
[animal], [degree] lost. "Are there [color] [animal.s] in here?" [wailed] {guide}.

"Not if we sing," [said] {hero}. So they held on to [look.a] [tool], and sang about [taste]
[bake.s], [drink] and [taste] [fruit.s], until they stood at the [look] door.

"I was brave because you were," [said] {guide}. "[oh_yes]! So was I," [cheered] {hero}. [together]
""",
    "wish": """
{hero} threw [look.a] [small] into the wishing well. "One wish," [said] the well [manner]. {hero}
thought of [color.a] [thing], of [look.a] [instrument] and of [number] [fruit] [bake.s].

But behind the well sat [friend=other name], [trait.a] [animal], [degree] [gloomy]. "I have lost my
[color=color] [lost=thing]," [wailed] {friend}.

"Then I wish for the {color} {lost}," [said] {hero} [manner]. Out it flew, full of [insect.s], and
landed on {friend}'s [nose|head|foot|tail]. "[oh_yes]!" [cheered] {friend}.

"For a friend, that counts as half a wish," [said] the well. So {hero} wished for half [fruit.a]
[bake], [taste] and [other taste]. [together]
""",
    "soup": """
{hero} had nothing for supper but [color.a] pot, [drink] and [look.a] [button=small]. So {hero.he}
lit a fire by the [scene] [spot], and [stirred|whistled|hummed] [manner].

"[Supper|Tea|Lunch]?" asked [one=other name] the [trait] [animal]. "{button.cap} soup," [said]
{hero}. "It [only|just] needs [first=vegetable.a]." And {one} ran home for {first.a}.
"[Supper|Tea|Lunch]?" asked [two=other name] the [trait] [animal]. "{button.cap} soup," [said]
{hero}. "It [only|just] needs [second=other vegetable.a]." And {two} ran home for {second.a},
[taste] [bake.s] and [spice].

It was the [best|finest|thickest] soup since [day]. At the bottom lay the {button}. "[oh_yes]! It is
still as good as new," [cheered] {hero}. [together]
""",
    "giant": """
A giant sat down on the [scene] [spot] and wept. Away ran the [trait] [job], the [other trait]
[other job] and [number] [animal.s]. Only {hero} stayed, behind [look.a] [furniture]. "There is
[thorn=small.a] between my toes," [wailed] the giant, "and I am [degree] ticklish."

{hero} and [friend=other name] the [trait] [animal] [fetched|borrowed|found] [look.a] [tool] and
[look.a] [other tool], and pulled. Out came the {thorn}! "[oh_yes]!" [cheered] the giant, and
[number] [clothes.s] blew off the line.

Then they rode home on the giant's [shoulders|hat|head]. From up there the [spot] looked like
[look.a] [small], and the [weather] air smelled of [spice]. [goodnight]
""",
    "hiccups": """
{hero} had the hiccups. Hic! {hero.He} spilled the [drink]. Hic! {hero.He} dropped [color.a]
[crockery].

"Stand on your head and think of [color] [animal.s]," [said] [other name] the [trait] [animal].
{hero} did. Hic! "Drink [drink] from [look.a] [clothes]," [said] [other name] the [trait] [animal].
{hero} did. Hic!

Then [friend=other name], [trait.a] [animal], came by, [degree] [gloomy]. "I have baked [taste.a]
[filling=fruit] [bake=bake], and nobody will [try|taste|eat] it," [wailed] {friend}. So {hero} ate
some, [manner], and then some more.

"[oh_yes]! Your {filling} {bake} has cured me!" [cheered] {hero}. {friend} was [degree] [glad].
"Hic," [said] {friend}. [goodnight]
""",
    "sled": """
{hero} was afraid of the big hill. The others [raced|flew|slid] down it in [color] [clothes.s], but
{hero} stood at the top and counted [bird.s].

"My tummy is full of [trait] [insect.s]," [wailed] [friend=other name] the [trait] [animal]. They
sat down on [look.a] [color=color] sled, only to [rest|talk|see|think]. "Shall we go when I have
counted to [count=number]?" asked {friend}.

At two, [trait.a] [bird] landed on the back of it. Off they went, past the [scene] [spot], under
[tree.a] and through the [color] [flower.s]! Then it was [degree] quiet.

"[oh_yes]! Again!" [cheered] {hero}. And the {color} sled went down {count} times more. [together]
""",
    "fence": """
{hero} set out to paint the fence [color=color], from the [scene] [spot] to the
[tall|old|crooked|hollow|young] [tree=tree]. [friend=other name] the [trait] [animal]
[wanted|liked|chose] [end=other color].

"I say {color}," [said] {hero}. "I say {end}," [said] {friend}. Soon {hero} had {end} paint on the
[nose|ears|feet], and {friend} had {color} paint on the [clothes].

[other name], [trait.a] [job], came by with [look.a] [thing]. "[oh_yes]! What
[lovely|splendid|handsome|cheerful|dashing|bold] stripes!"

They looked. One board was {color}, the next was {end}, and so on, as far as the {tree}. "We planned
it so," [said] {hero} [manner]. "Since [day]," [said] {friend}. [together]
""",
    "sleep": """
{hero} could not sleep. The [look] [furniture] [creaked|squeaked|smelled], and the [clothes] was too
[tight|warm|thin]. {hero.He} counted [number] [trait] [sheep=animal.s], but they would not stand in
line: one wanted [drink], and one wanted [taste] [fruit] [bake.s].

[friend=other name] the [trait] [animal] knocked, in [color.a] [clothes]. "Tell me a story,"
[wailed] {friend}.

"There was once [trait.a] [beast=animal]," began {hero}, "who had [color.a] [thing=thing]." {friend}
yawned. "And the {beast} took the {thing} to the [scene] [spot]." {hero} yawned. "There sat
[trait.a] [job] with [look.a] [instrument], and the {beast}..."

How it ended, nobody knows. Even the {sheep.s} lay down, [glad] and [other glad], all in one line.
""",
    "map": """
{hero} found a treasure map in [look.a] [furniture]. "Walk [steps=number] steps from the
[start=spot] to the [tree=tree]," it said, "and dig." So {hero.he} and [friend=other name] the
[trait] [animal] took [look.a] [tool] and some [taste] [bake.s]. [journey]

They walked {steps} steps from the {start} and dug under the {tree}. Up came [small.s], [trait.a]
[insect] and [color=color.a] [chest=container]. In the {chest} lay [look.a] [thing] and a
[letter|note]: "This is mine. Do not dig it up again! Yours, {hero}."

"[oh_no]! I hid it on [day], so as not to lose it," [wailed] {hero}. {friend} laughed until the
[bird.s] [flew off|woke up|joined in]. [together]
""",
}
