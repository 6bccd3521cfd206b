"""The built-in text that prompts are drawn from: plain sentences, no meaning intended."""

SENTENCES = """\
The ferry leaves the harbour at seven in the morning and comes back before the evening tide.
A small garden needs water in summer, shade in the afternoon and patience all year round.
She repaired the clock in the hall, wound it carefully and listened until it kept good time.
Most of the visitors came by train, although the road along the river had been open for weeks.
The library keeps its oldest maps in flat drawers, each one wrapped in a sheet of grey paper.
When the rain stopped, the children ran outside and built a dam across the narrow ditch.
He wrote three letters that night, sealed two of them and burned the last one in the stove.
Copper conducts heat better than iron, which is why the old kitchen was full of copper pans.
The committee met twice a month to discuss the price of coal, bread and winter coats.
From the top of the hill you can see four villages, two churches and the edge of the forest.
An engineer measured the bridge again and found that it had moved by less than a millimetre.
Every spring the storks return to the same chimney and repair the nest they left in autumn.
The recipe asks for two cups of flour, a spoonful of honey and a pinch of salt.
Nobody remembered who had planted the walnut tree, but everybody knew whose turn it was to climb.
In the workshop the students learn to plane a board, cut a joint and sharpen their own tools.
The museum closed one wing for repairs and hung the paintings in the corridor meanwhile.
A traveller asked for the way to the station and was given three different answers.
Sound travels faster through water than through air, and faster still through steel.
They counted the sheep at the gate, lost their place at forty and began again.
The telescope was pointed at a dim star whose light had left it before the town was founded.
Her grandfather kept bees, sold candles at the market and read the newspaper a day late.
If the kettle boils over, turn down the flame, wait a minute and lift the lid with a cloth.
The second edition corrected the spelling, added an index and dropped the long preface.
Two boats crossed the lake side by side without either crew looking at the other.
Snow lay on the roofs until April, and the postman wore his heaviest boots all that time.
A good map shows what is there, a better one shows how to get past it.
The orchestra tuned twice, because the hall was colder than the room they had practised in.
Salt, rope and lamp oil were sold at the same counter as ribbons and writing paper.
He divided the field into nine strips and left one of them for poppies.
The last page of the notebook held a list of birds, each with the date it was first heard.
""".splitlines()
