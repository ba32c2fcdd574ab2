"""The words and plots of tales.py, as plain text; that file explains the brackets and braces.

In a menu, words are separated by ", " and an irregular plural follows a slash. The first words
are chosen about twice as often as the last. In a rule, each alternative starts with "- ".
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
        "goose/geese, toad, beaver, cat, dog, kitten, puppy, lamb, goat, pig, hen, owl, raccoon, panda, "
        "koala, elephant, lion, tiger, monkey, camel, donkey, pony, reindeer/reindeer, "
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
        "silver, scarlet, violet, turquoise, crimson, copper, cream, lilac, amber, emerald, ivory, "
        "striped, spotted, checkered, rosy, sky-blue"
    ),
    "glad": (
        "happy, glad, pleased, proud, cheerful, delighted, merry, thankful, joyful, warm, hopeful, "
        "grateful, content, peaceful, excited, lucky, brave, jolly, light-hearted, tickled, "
        "overjoyed, sunny"
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
        "quiet, green, sunny, little, windy, sleepy, cozy, snug, hidden, faraway, leafy, grassy, "
        "busy, crooked, pretty, lonely, peaceful, mossy, shady, flowery, narrow, wide, rocky, "
        "sandy, dusty, muddy, misty, steep, secret, forgotten, famous, friendly, lovely, small, "
        "big, warm, cool, bright, far-off, nearby, tidy, untidy"
    ),
    "look": (
        "old, little, shiny, tiny, big, dusty, wooden, rusty, soft, round, crooked, pretty, "
        "painted, patched, polished, square, lumpy, wobbly, squeaky, creaky, heavy, fine, plain, "
        "fancy, smooth, bent, borrowed, secret, lopsided, enormous, handsome, curly, second-hand, "
        "worn-out, brand-new, homemade, antique, splendid, sturdy, dented, speckled, flowery, "
        "magnificent, ordinary, peculiar, precious, small, large, neat, muddy, glittering, "
        "beautiful, funny, favorite, cracked, foreign, wonderful, curious"
    ),
    "taste": (
        "sweet, sticky, crunchy, warm, fresh, juicy, ripe, sugary, crisp, tender, soft, creamy, "
        "spicy, tasty, delicious, tiny, golden, plump, cold, buttery, salty, sour, bitter, "
        "crumbly, dried, roasted, steaming, wild, pickled, frosted"
    ),
    "degree": "very, rather, quite, a little, terribly, so, ever so, most, awfully, truly, too",
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
        "churchyard, schoolyard, scarecrow, rope swing, hollow log, big rock, sundial, stepping "
        "stones, boathouse, woodshed, cabbage patch"
    ),
    "tree": (
        "oak, ash, elm, birch, beech, maple, willow, pine, fir, cedar, larch, holly, chestnut, "
        "walnut, poplar, alder, rowan, linden, sycamore, aspen, spruce, yew, juniper, cypress"
    ),
    "flower": (
        "daisy, tulip, rose, buttercup, bluebell, violet, daffodil, pansy, sunflower, poppy, "
        "marigold, primrose, snowdrop, crocus, foxglove, dandelion, iris, peony, dahlia, aster, "
        "lupin, orchid, geranium, petunia, carnation, clover, cowslip, hollyhock, zinnia, begonia, "
        "cornflower, forget-me-not"
    ),
    "bird": (
        "sparrow, wren, thrush, blackbird, lark, swallow, finch/finches, cuckoo, magpie, starling, "
        "nightingale, woodpecker, kingfisher, dove, jay, gull, bluebird, linnet, warbler, wagtail, "
        "goldfinch/goldfinches, quail, partridge, puffin, pelican, canary, hummingbird, swift"
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
        "chocolate, plum juice, ginger beer, barley water, honey milk, nettle tea, rose tea, malt, "
        "grape juice"
    ),
    "spice": (
        "cinnamon, honey, butter, vanilla, ginger, nutmeg, mint, sugar, cloves, lemon, almonds, "
        "caramel, thyme, rosemary, sage, basil, parsley, saffron, pepper, dill, toffee, cardamom, "
        "lavender, treacle, chocolate"
    ),
    "thing": (
        "kite, ball, drum, wagon, umbrella, lantern, ribbon, balloon, blanket, teapot, kettle, "
        "bucket, mitten, cape, sled, scooter, bicycle, bell, whistle, pencil, notebook, "
        "paintbrush, marble, feather, necklace, ring, key, purse, box, chest, jug, spoon, stool, cushion, "
        "quilt, puppet, doll, spinning top, clock, candle, mirror, comb, kerchief, parasol, "
        "satchel, rocking horse, jump rope, hoop, pillow, teacup, vase, lamp, fan, flag, "
        "wheelbarrow, saucepan, watering can, telescope, toy boat, toy train, music box, "
        "picture book, handkerchief"
    ),
    "clothes": (
        "scarf/scarves, hat, coat, cap, bonnet, apron, shawl, jacket, vest, cloak, sweater, shirt, "
        "bow tie, nightcap, raincoat, cardigan, waistcoat, dressing gown, beret, belt, sash, "
        "pinafore, hood, poncho, tunic, jumper"
    ),
    "small": (
        "button, bead, acorn, pebble, shell, feather, coin, thimble, cork, pin, leaf/leaves, "
        "twig, stamp, crumb, nail, needle, seed, nut, stick, spool, buckle, penny/pennies, bone, "
        "peg, hook, string, sock, pinecone, crayon, bottle, spring, paper clip, walnut shell, "
        "cotton reel, ticket, star"
    ),
    "furniture": (
        "bed, table, chair, cupboard, sofa, desk, dresser, wardrobe, bench, bookshelf, stove, "
        "piano, rug, bathtub, sink, door, armchair, ladder, basket, trunk, barrel, stairs, "
        "woodpile, cradle, mattress, curtain, washtub, hammock"
    ),
    "container": (
        "basket, bag, bowl, bucket, box, jar, sack, pail, tin, crate, barrel, cup, hatful, "
        "wheelbarrow, tub, pot, trayful, apronful, cartload, pocketful"
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
        "dominoes, blindman's buff, jacks, football, tug-of-war, knights, follow-the-leader, "
        "statues, snap, chess, horseshoes"
    ),
    "number": "three, four, five, six, seven, eight, nine, ten, eleven, twelve, twenty",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "material": (
        "wood, paper, straw, tin, clay, cardboard, reeds, bark, planks, barrels, old doors, "
        "driftwood, boxes, bamboo, cork, logs, leather, walnut shells"
    ),
    "adverb": (
        "quickly, slowly, quietly, carefully, happily, bravely, gently, politely, proudly, softly, "
        "eagerly, sleepily, patiently, cheerfully, nervously, boldly, calmly, merrily, shyly, "
        "steadily, kindly, sadly, seriously, thoughtfully, loudly, firmly, anxiously, warmly, "
        "hopefully, solemnly, grandly, brightly, briskly, wearily, gravely, dreamily"
    ),
    "moved": (
        "ran, walked, skipped, hopped, hurried, marched, trotted, tiptoed, scampered, strolled, "
        "raced, wandered, galloped, bounced, trudged, scurried, danced, dashed, rushed, paddled, "
        "waddled, crept, rolled, stamped, plodded, rambled, darted, bounded, ambled, zigzagged"
    ),
    "said": (
        "said, cried, called, whispered, laughed, sighed, shouted, murmured, mumbled, sang, "
        "squeaked, answered, added, announced, exclaimed, gasped, giggled, chuckled, declared, "
        "muttered"
    ),
    "oh": (
        "Oh dear, Goodness me, My oh my, Dear me, Bless my buttons, Bless my whiskers, Well I "
        "never, Upon my word, Great acorns, Jumping beans, Leaping lizards, Good heavens, My "
        "stars, Holy mackerel, Oh my, Fiddlesticks, Gracious, Hoity-toity, Thundering turnips, "
        "Crumbs"
    ),
    "relative": (
        "mother, father, grandmother, grandfather, aunt, uncle, sister, brother, cousin, "
        "godmother, great-aunt, twin, niece, nephew, stepfather, great-uncle"
    ),
    "job": (
        "baker, miller, farmer, tailor, postman, teacher, doctor, fisherman, shepherd, gardener, "
        "carpenter, blacksmith, painter, sailor, cook, weaver, potter, cobbler, clockmaker, "
        "hatter, beekeeper, barber, mayor, librarian, juggler, toymaker, butcher, grocer, florist, "
        "woodcutter, ferryman, king, queen"
    ),
}

RULES = {
    "story": """
- [opening] [habit]

[plot]
""",
    "opening": """
- Once upon a time, in a [scene] [land], there lived [trait.a], [other trait] [kind=animal] named
  [hero=name].
- Once there was [trait.a] [kind=animal] named [hero=name], who lived in a [scene] [land] near the
  [look] [spot].
- Once, when the [flower.s] and the [other flower.s] were in bloom, [trait.a] [kind=animal] named
  [hero=name] moved to a [scene] [land].
- Once, in [color.a] house of [material] and [other material], there lived [trait.a] [kind=animal]
  named [hero=name].
- Once, between the [look] [spot] and the [other look] [other spot], [trait.a] [kind=animal] named
  [hero=name] lived with {hero.his} [relative].
""",
    "habit": """
- {hero.He} wore [color.a] [clothes] with [other color] [small.s] and carried [look.a] [thing].
- {hero.His} [relative], [trait.a] [job], smelled of [spice] and [other spice].
- On [day.s] {hero.he} played [game], and on [other day.s] the [look] [instrument].
- What {hero.he} liked best was [drink] with [taste] [fruit] [bake.s].
- {hero.He} owned [number] [color] [thing.s] and [look.a] [instrument].
- Nobody knew more about [insect.s], [bird.s] and [color] [flower.s].
- In {hero.his} garden grew [vegetable.s], [color] [flower.s] and [look.a] [tree].
""",
    "scenery": """
- It was a [weather], [other weather] [day], and the air smelled of [spice].
- The [weather] air smelled of [spice] and [flower.s].
- On the [tree] a [look] [bird] sang about [insect.s] and [other insect.s].
- The [flower.s] nodded in the [weather] wind.
""",
    "journey": """
- {hero.He} [moved] past the [look] [spot], and [adverb] over the [other spot].
- {hero.He} [moved] [adverb] through the [flower.s] and the [other flower.s].
- On the way {hero.he} counted [number] [bird.s] and [look.a] [insect].
- The road went by the [spot], the [other spot] and [number] [look] [tree.s].
""",
    "sigh": """
- "[oh]!" [said] {hero} [adverb].
- "[oh], how [gloomy] I am," [said] {hero}.
- {hero} felt [degree] [gloomy] and [degree] [other gloomy].
- {hero} sat down on [look.a] [small] and felt [degree] [gloomy].
""",
    "goodnight": """
- {hero.He} went to bed [glad], and dreamed of [color] [thing.s] and [number] [animal.s].
- That night {hero} was [degree] [glad], and even the [look] [furniture] looked [other glad].
- And {hero} [moved] home [adverb], feeling [glad] and [other glad].
- Then there was [drink] for everybody, and [taste] [fruit] [bake.s].
""",
    "together": """
- From then on, they played [game] and [other game] every [day].
- Then they drank [drink] and ate [taste] [bake.s] until the [bird.s] fell asleep.
- They [moved] home [adverb], [glad] and full of [taste] [fruit.s].
- On [day] they wore [color] [clothes.s] and danced to the [instrument] and the [other instrument].
- So they were [glad], and the [look] [spot] rang with [taste] songs.
""",
}

PLOTS = {
    "lost": """
{hero} could not find {hero.his} [color=color] [thing=thing]. {hero.He} looked behind the [look]
[furniture] and under the [other furniture], but saw only [small.s] and [look.a] [insect].
[sigh]

"Try where you had it last," [said] [friend=other name] the [trait] [other animal]. They [moved] to
the [spot]. There lay the {color} {thing}, with [color.a] [bird=bird] asleep on top of it.

"[oh]," [said] {hero} [adverb]. "It can wait." They ate [taste] [fruit.s] until the {bird} woke up.
[goodnight]
""",
    "pie": """
{hero} had baked [taste.a] [filling=fruit] [bake=bake] and meant to eat it alone. The [look] kitchen
smelled of [spice] and [other spice].

Then someone knocked. It was [friend=other name], [trait.a] [other animal], [degree] [gloomy]. "Since
[day] I have had nothing but [vegetable.s]," [said] {friend}.

{hero} looked at {friend}, and at the {filling} {bake}. It was not a big {bake}. "[oh]," [said]
{hero}, "I have two spoons." They ate it [adverb], to the last crumb, while {friend} told a story about
[job.a] and [number] [animal.s]. [together]
""",
    "promise": """
{hero} had promised some [gift=fruit.s] to [friend=other name] the [trait] [other animal], who was in
bed with a cold. [journey]

"Come and play [game=game]," [said] [other name], [trait.a] [other animal].

{hero} loved {game}, but [said] [adverb], "First I must bring {friend} the {gift.s}." And {hero.he}
[moved] on, though the [spot] smelled of [taste] [bake.s].

{friend} sat waiting in [color.a] [clothes]. "My {gift.s}! You did not forget!" {friend.he} [said],
and sneezed. By [day] they were both playing {game}. [together]
""",
}
