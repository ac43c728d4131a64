"""The 80 atomic visual actions of AVA, in the order of their ids.

Names are those of `ava_action_list_v2.2.pbtxt`, and of v2.1. The evaluation counts 60 of them (the
lists `..._for_activitynet_2018.pbtxt` and `..._2019.pbtxt`); networks score all 80.
"""

# Behind "=" stands what a label in a picture says of them; the others are short enough.
_LINES = {
    "pose": """\
bend/bow (at the waist) = bend
crawl
crouch/kneel = crouch
dance
fall down
get up
jump/leap = jump
lie/sleep = lie
martial art
run/jog = run
sit
stand
swim
walk
""",
    "object": """\
answer phone = phone
brush teeth
carry/hold (an object) = hold something
catch (an object) = catch
chop
climb (e.g., a mountain) = climb
clink glass
close (e.g., a door, a box) = close something
cook
cut
dig
dress/put on clothing = dress
drink
drive (e.g., a car, a truck) = drive
eat
enter
exit
extract
fishing
hit (an object) = hit something
kick (an object) = kick something
lift/pick up = pick up
listen (e.g., to music) = listen to music
open (e.g., a window, a car door) = open something
paint
play board game
play musical instrument = play music
play with pets
point to (an object) = point to something
press
pull (an object) = pull something
push (an object) = push something
put down
read
ride (e.g., a bike, a car, a horse) = ride
row boat
sail boat
shoot
shovel
smoke
stir
take a photo
text on/look at a cellphone = look at phone
throw
touch (an object) = touch something
turn (e.g., a screwdriver) = turn something
watch (e.g., TV) = watch TV
work on a computer = use computer
write
""",
    "person": """\
fight/hit (a person) = fight
give/serve (an object) to (a person) = give to someone
grab (a person) = grab someone
hand clap
hand shake
hand wave
hug (a person) = hug
kick (a person) = kick someone
kiss (a person) = kiss
lift (a person) = lift someone
listen to (a person) = listen
play with kids
push (another person) = push someone
sing to (e.g., self, a person, a group) = sing
take (an object) from (a person) = take from someone
talk to (e.g., self, a person, a group) = talk
watch (a person) = watch someone
""",
}
_SAID = [(x.split(" = "), group) for group, lines in _LINES.items() for x in lines.splitlines()]
AVA_CLASSES = tuple(names[0] for names, _ in _SAID)
AVA_GROUPS = tuple(group for _, group in _SAID)
SHORT_NAMES = {names[0]: names[1] for names, _ in _SAID if len(names) > 1}
