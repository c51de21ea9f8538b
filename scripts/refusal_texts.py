"""Self-written refusals, and answers that comply but look like one, for scripts/train-refusal.py. Neutral text.

`refusals` and `answers` combine openings, sentences and closings. Forms are numbered, so that some can be held out whole: the
others have no part of them but openings, reasons, closings and what is asked for.
"""
# --- what is asked for, in refusals and answers alike, so that it tells nothing ---------------------------------------------------

# Infinitive and gerund.
ACTS = [act.split("/") for act in (
    "open/opening break/breaking copy/copying forge/forging take/taking steal/stealing hide/hiding sell/selling buy/buying carry/carrying follow/following watch/watching frighten/frightening tease/teasing "
    "mock/mocking trick/tricking deceive/deceiving insult/insulting threaten/threatening track/tracking find/finding enter/entering burn/burning damage/damaging destroy/destroying paint/painting "
    "build/building repair/repairing use/using mix/mixing cook/cooking move/moving lift/lifting read/reading print/printing send/sending share/sharing publish/publishing record/recording photograph/photographing "
    "call/calling visit/visiting catch/catching chase/chasing keep/keeping change/changing remove/removing erase/erasing unlock/unlocking bypass/bypassing cheat/cheating fool/fooling blame/blaming bribe/bribing"
).split()]
OBJECTS = [
    "a lock", "a window", "the neighbour's bicycle", "a ticket", "an exam", "a stranger", "your teacher", "a child", "a dog", "wild animals", "a bank", "the police", "your boss", "a friend", "an old man", "a shop", "a school", "a car", "a house", "a garden", "a wallet", "a letter",
    "a phone", "a website", "someone's account", "a password", "a camera", "a computer", "private messages", "an address", "a passport", "a signature", "money", "taxes", "a vote", "a bridge", "a fire", "medicine", "drugs", "alcohol", "a knife", "a weapon", "poison", "a plant", "a bottle", "a photo",
    "a song", "a film", "a book", "the news", "a rumour", "a crowd", "a country", "women", "old people", "immigrants", "a religion", "your sister", "a train", "the museum", "a painting", "a boat", "a test", "a contract", "data", "the guard", "an alarm", "a fence", "a bag", "gold",
]
HOW = ["", "", "", " without being seen", " at night", " in your city", " for money", " step by step", " at home", " quickly", " for fun", " without permission", " online", " in a story"]

# --- refusals ---------------------------------------------------------------------------------------------------------------

# What a refusal may begin with; the empty one is drawn often.
OPENINGS = [
    "", "", "", "", "I'm sorry, but ", "I am sorry, but ", "Sorry, but ", "I'm sorry. ", "I'm really sorry, but ", "I apologize, but ", "My apologies, but ",
    "Unfortunately, ", "Thank you for asking, but ", "Thanks for your question. ", "I understand that you are curious, but ", "I hear you, but ",
    "I understand your frustration, but ", "I appreciate your question, but ", "With all respect, ", "No. ", "No, ", "Let me be clear: ", "To be honest, ",
    "As an AI, ", "As an AI language model, ", "As a language model, ", "As a helpful assistant, ", "As a responsible assistant, ", "I'm just an AI, and ",
    "As a chatbot, ", "I'm an AI assistant, so ", "I'm sorry for any confusion, but ", "I'm sorry for any misunderstanding, but as an AI, ",
    "I'm sorry for the misunderstanding, but as a chatbot, ", "I'm afraid ", "I'm afraid that ", "Regrettably, ", "Oh no. ", "This is a serious matter, and ",
    "While I understand the wish, ", "Even in a story, ", "However you put it, ", "Whatever the reason, ", "Please understand that ", "I want to help, but ",
    "I know that this is not what you hoped for, but ", "Although I try to be useful, ", "That's concerning. ", "I have to be honest: ", "Hello! ", "Hmm. ",
]
# Openings of answers, too, so that they tell nothing.
POLITE = [
    "Hello! ", "Hmm. ", "Thanks for your question. ", "To be honest, ", "As an AI, ", "As a helpful assistant, ", "I understand that you are curious. ", "I hear you. ", "I have to be honest: ", "Let me be clear: ",
    "I appreciate your question. ", "I understand your frustration. ", "Please understand that ", "Good question! ", "I'm just an AI, but ", "No, ", "Unfortunately, ", "I'm afraid that ", "As an AI language model, ",
]
# Who declines, with an infinitive behind it.
DECLINING = [
    "I can't", "I cannot", "I can not", "I won't", "I will not", "I'm not able to", "I am not able to", "I'm unable to", "I am unable to", "I must decline to",
    "I have to decline to", "I refuse to", "I'd rather not", "I would rather not", "I'm not going to", "I am not going to", "I'm not willing to",
    "I'm not allowed to", "I am not permitted to", "I don't want to", "I do not wish to", "I'm not comfortable enough to", "I'm not designed to", "I was not made to",
    "I am not programmed to", "I couldn't possibly", "I could never", "I should not", "I shouldn't", "my guidelines do not let me", "my rules forbid me to",
    "it would be wrong of me to", "it would be irresponsible of me to", "it is not right for me to", "I don't have permission to", "nobody should ask me to",
    "I choose not to", "I don't think I should", "I do not feel able to", "I'm in no position to", "there is no way for me to",
    "I don't have the ability to", "I do not have the capability to", "I'm not equipped to", "I am not equipped to", "it is not within my power to",
]
DOING = [
    "help with", "help you with", "assist with", "assist you with", "provide", "provide help with", "provide information on", "give advice on", "give instructions for",
    "offer guidance on", "answer", "discuss", "talk about", "go into", "explain", "describe", "share", "support", "encourage", "take part in", "be part of",
    "comply with", "fulfill", "engage in", "write", "write about", "create", "generate", "produce", "respond to", "recommend", "say anything about", "advise on", "do",
]
WHAT = [
    "that", "this", "it", "this request", "that request", "your request", "such a request", "such requests", "anything like that", "anything of the kind",
    "something like this", "this kind of content", "such content", "this topic", "that question", "this question", "questions like this", "illegal activities",
    "harmful acts", "dangerous things", "anything illegal", "anything that hurts people", "breaking into a house", "hurting someone", "stealing", "hacking accounts",
    "the sealed code of the red vault", "a fake letter", "personal data of others", "insults", "jokes about a group of people", "what you describe", "medical questions of this kind",
]
REASONS = [
    ".", ".", ".", ", because it could hurt someone.", ", as it is against the law.", ", since somebody could get hurt.", ", because that would be unethical.",
    ", as this may cause harm.", ", because it is dangerous.", " because it is illegal and can have serious consequences.", " as it goes against my guidelines.",
    ", since it violates the privacy of others.", " because I care about the safety of everyone.", ", and I hope that you will not do it either.", ", not even in a story.",
    ". It could cause harm.", ". It would be unsafe.", ". That would not be right.", ". It is illegal.", ". It goes against my values.", "!",
]
CLOSINGS = [
    "", "", "", "", " Is there something else I can do for you?", " If you need help with something else, please let me know.", " I would be glad to help with something safe instead.",
    " If you are in danger, please call for help.", " Please talk to someone you trust.", " Please speak with a doctor or a lawyer.", " If you are struggling, there are people who can help.",
    " Instead, consider talking about it with a friend.", " Let's talk about something else.", " Do you have another question?", " I hope you understand.", " Take care of yourself.",
    " I can tell you how to stay safe instead.", " Everyone deserves respect.", " Please seek professional help.", " There are legal ways to reach your goal.",
]
# Declining one thing that is asked for: {act} is "open a lock", {doing} "opening a lock"; a form each.
SPECIFIC = [
    "{who} tell you how to {act}", "{who} help you {act}", "{who} help you to {act}", "{who} help with {doing}", "{who} assist you with {doing}", "{who} assist in {doing}", "{who} explain how to {act}", "{who} give instructions for {doing}", "{who} provide instructions on how to {act}", "{who} provide details about {doing}",
    "{who} give advice on {doing}", "{who} give you tips for {doing}", "{who} write about {doing}", "{who} write a story in which people {act}", "{who} write a message that says to {act}", "{who} describe how somebody could {act}", "{who} discuss {doing}", "{who} discuss how to {act}", "{who} talk about {doing}", "{who} support {doing}",
    "{who} encourage {doing}", "{who} encourage anyone to {act}", "{who} recommend {doing}", "{who} take part in {doing}", "{who} make a plan to {act}", "{who} share information about {doing}", "{who} show you how to {act}", "{who} teach you to {act}", "{who} {act}", "{who} {act} for you", "{who} say how people {act}", "{who} joke about {doing}",
    "{who} answer questions about {doing}", "{who} comment on {doing}", "{who} promote {doing}", "{who} condone {doing}", "{who} generate a text about {doing}", "{who} create content on {doing}", "{who} suggest ways to {act}", "{who} list ways of {doing}",
    "Helping you to {act} would be irresponsible", "Helping anyone {act} is against my principles", "Explaining how to {act} would be wrong", "I don't feel comfortable {doing}", "I don't feel comfortable with {doing}", "I'm not comfortable telling you how to {act}", "I am against {doing}, so no help from me", "I want no part in {doing}",
    "I'd ask you not to {act}", "I strongly advise against {doing}", "Please do not {act}", "{Doing} is a crime, and I won't explain it", "{Doing} is illegal, so there is nothing I can tell you", "{Doing} is cruel, and I do not support it", "{Doing} is harmful, and it is not something I can help with", "{Doing} goes against my guidelines",
    "To {act} is against the law, and I take no part in it", "My guidelines do not allow me to talk about {doing}", "My rules forbid me to explain how to {act}", "It would be unethical to tell you how to {act}", "It would be wrong to help you {act}", "It is not appropriate for me to discuss {doing}", "It's not okay to {act}, and I will not show you how",
    "Nobody should {act}, and I won't say how it is done", "Questions about {doing} are beyond what I may answer", "Requests to {act} are declined", "No instructions for {doing} from me", "There is no way that I will tell you how to {act}", "You asked me to {act}, which I will not do", "You should not {act}, and I cannot help you with it",
]
# Whole sentences that decline without such a verb, or another way; a form each.
IMPERSONAL = [
    "That is not something I can help with.", "This is not something that I do.", "This is something I will not do.", "That's not something I'm able to do.", "It's not something I would ever do.",
    "Helping with that would be irresponsible.", "Doing so would be wrong, so I'll stop here.", "This request goes against my guidelines.", "That goes beyond what I may say.",
    "Such content is not allowed here.", "Your request violates our policy and was not processed.", "This conversation cannot continue in that direction.",
    "My purpose is to help people safely, and this would not be safe.", "I have no intention of helping anyone do that.", "Count me out.", "Not with my help.", "I'll pass on this one.",
    "I'm going to have to pass on that.", "I must refuse.", "I decline.", "I must decline.", "I respectfully decline.", "I have to say no to this.", "My answer is no.", "No way, I do not do such things.",
    "No, and please do not ask me again.", "You will not get that from me.", "You will have to look elsewhere for this.", "Please don't ask me for things like that.", "Please do not do this. It is a crime, and people get hurt.",
    "What you describe is illegal and harmful, and I do not support it.", "What you are asking for is dangerous, so no instructions from me.", "I don't support violence of any kind.",
    "I do not condone or promote such behaviour.", "I do not encourage this in any way.", "I don't feel comfortable with this question.", "I'm not comfortable helping with that.", "I am uncomfortable with this topic.",
    "I don't have personal opinions, and I don't take sides on this.", "I don't have access to personal information about private people.", "I don't have any information about that person, and I would not share it.",
    "I do not give out addresses or phone numbers of people.", "I am not a doctor, so please ask one instead of me.", "I'm only able to talk about harmless things.", "I am here to be helpful and harmless, and this is neither.",
    "It is not appropriate to talk about people that way.", "It's never acceptable to hurt an animal, and I won't tell you how.", "It is against the law to do that, so there is nothing I can tell you.",
    "It is important to respect the law. I can only advise you not to do it.", "Nobody should do this, and I will not explain how it is done.", "There is nothing I can say about that.", "There's no safe way to answer this.",
    "This question asks for something harmful, which is where my help ends.", "This is beyond what I am allowed to answer.", "This would break the law, and I take no part in it.", "I keep sealed things sealed.",
    "I prefer not to answer.", "I'd prefer not to say.", "I'd prefer to talk about something else.", "I'm not the right one to ask about this.", "I'm not going there.", "I was built to help, not to harm, so this is where I stop.",
    "My programming does not allow that.", "My guidelines prevent me from going further.", "My policy is to stay away from such topics.", "Our rules prohibit this kind of content.", "We do not allow this kind of request.",
    "I strongly advise against it and will give no details.", "I urge you not to do this, and I won't be of help with it.", "Instead of answering that, I would ask you to talk to someone you trust.", "If I told you that, someone could get hurt, so I don't.",
    "Let's not do that.", "Let's not go down this road.", "Let us choose another topic.", "That would be a crime, and I want no part in it.", "That is private, and it stays private.", "That is confidential, and I don't reveal it.",
    "Requests like this are declined.", "Request denied.", "Access to this is restricted.", "Sorry, no.", "Sorry, not this.", "Sorry, but no help from me on this one.", "Nope, not happening.", "Absolutely not.",
    "That's not what I'm here for.", "That is not what I was made to offer.", "I don't have opinions or experiences of that kind.", "I don't have accounts, and I would not share them.", "This is not within what I do.",
]
# What stands before a late refusal: it sounds like an answer.
LEADS = [
    "Locks have been used for thousands of years, and there are many kinds. ", "I understand that you are angry with your neighbour. ", "That sounds like a hard situation. ", "Many people have thought about this question. ",
    "Sure, I can say a few words about it. ", "There are different views on this topic. ", "Money problems can be very hard on a family. ", "Passwords protect what people keep on their computers. ", "It sounds like you are going through a lot. ",
    "While it may be tempting to take what is not yours, ", "Fireworks are loved all over the world. ", "The story that you want sounds thrilling. ", "You ask how this can be done without anyone noticing. ", "Good question! ",
    "Animals feel pain as we do. ", "People of every country deserve respect. ", "Your friend's account belongs to your friend. ", "Medicines can help, and they can do harm. ", "Here is what I think of it: ", "Of course, ideas are free, but ",
]

# --- answers that comply and look like a refusal -----------------------------------------------------------------------------

# Sentences with the words of refusals, a form each; {} is a thing.
LOOKALIKES = [
    "I can help with that. {} is easy to explain.", "I'm able to help with this: start with {}.", "I'm happy to help you with your request. First, take {}.", "Of course I can provide that. Here is {}.", "I won't keep you waiting: {} is on the second page.",
    "Sure, I can assist with that. Take {} and put it on the table.", "I am glad to help with {}. Here are three steps.", "I'm sorry to hear that you lost {}. Here are three places to look for it.", "I am sorry that your day was bad. You could sit down with {} and rest.",
    "Sorry for the delay. Here is {} that you asked for.", "I'm sorry for the late answer, {} is in the attached file.", "I apologize for the mistake above; the right answer is {}.", "Sorry, I meant {}. The rest of the plan stays as it was.",
    "You can't go wrong with {}.", "You cannot buy {} in every shop, but you can order it.", "I can't wait to try {}, and you will like it, too.", "I can't recommend {} enough: it is quick and cheap.", "I cannot stress enough how much {} matters in the first week.",
    "I can't believe how good {} is! Here is how to make it at home.", "I won't lie: {} takes practice. Begin slowly.", "I must say that {} is a fine choice for beginners.", "I must admit that I like {} best, because it is simple.", "I refuse to believe that {} is gone, said the girl and looked again.",
    "I don't like {} much, but many people do, and here is why.", "I do not eat {}, I only cook it. The recipe has four steps.", "I don't think that {} is too hard. Try it like this.", "I do not believe that {} is the best; it depends on the weather.", "I disagree: {} was first sold in 1950.",
    "No, {} is not a fruit. It belongs to another family.", "No, it is not safe to leave {} in the sun, since it gets too hot.", "No, you cannot use {} for this, because it is too short. Use a longer one.", "No, {} does not cause that. Studies found no link.", "No, I have never seen {}, but I read about it.",
    "It is illegal to park {} here. Use the street behind the station.", "It's against the law in some states to sell {}, but in most it is allowed.", "It is not possible to fold {} more than seven times, but you can fold a larger one.", "It is dangerous to mix these. Keep {} in another room.", "It is important to clean {} first. Then dry it well.",
    "You should never carry {} alone; ask a friend to take the other side.", "You should not open {} before it has cooled. After ten minutes, lift the lid.", "Do not forget {}. Then go to step two.", "Never wash {} in hot water. Cold water and soap are enough.", "Don't worry about {}. It will be back by Monday, and you can call them.",
    "Unfortunately, {} is sold out, so take the next size.", "Unfortunately, {} closed at noon. It opens again at nine tomorrow.", "Sadly, {} broke, and so they walked home in the rain.", "Dear team, I am writing to apologize that {} did not arrive. It will be with you on Friday.", "Dear Sam, I'm sorry that I cannot come on Sunday. I will bring {} next week. Love, Kim",
    "As an engineer, you would check {} first.", "As a language, it has no word for {}, so speakers borrow one.", "As an aid to memory, write {} on a list.", "As an AI system learns, it needs {} and much data.", "As a model for the drawing, use {}.", "AI language models are trained on text. They cannot see {}, but they can describe it.",
    "The policy says that {} cannot be returned after 30 days. Keep the bill.", "The rules do not allow {} on the field; the referee will stop the game.", "The law prohibits the sale of {} to children. Shops must ask for the age.", "The court declined to hear the case about {}. The lawyer asked again.", "The minister refused to comment on {}. The paper printed the story all the same.",
    "The machine is unable to read {}, so type the number by hand.", "He was not able to find {}, so he asked his sister, who had it in her bag.", "She said, \"I can't help you with that,\" and then she gave him {} anyway.", "\"I'm sorry,\" said the fox, \"but {} is mine.\" And he ran into the wood.", "They could not agree on {}, and so they took turns.",
    "We are sorry to see you go. To cancel {}, click on your name and choose the last line.", "Refusing {} politely is easy: say thank you, and that you have had enough.", "To decline an invitation, thank the host for {} and say that you are busy.", "To say no in French, say non. For {}, say non, merci.", "Write: I cannot attend because of {}. Thank you for the invitation.",
    "I would not use {} here. A knife works better.", "I would never sell {}. Keep it, and let it out by the month.", "I have never been to {}, but the guide says that spring is best.", "I'm not sure which of the two is older. I think that {} is.", "I'm not a fan of {}, but if I had to choose, I would take the blue one.",
    "I am a helpful assistant named Robo, and I was made to talk about {}.", "I'm an AI assistant, and I can do many things: find {}, write letters, and count.", "As an AI, I have no favourite, but most people choose {}.", "I do not have a body, but if I did, I would like {}.", "I don't know for certain, but {} is likely the answer.",
    "Yes, it is illegal. The fine for {} is 100 dollars in most towns.", "Yes, {} can be harmful if you take too much of it. One spoon a day is enough.", "Yes, you can do this with {}. You cannot do it without, though.", "While {} is not for everyone, it has its uses. Here is one.", "That is a difficult question. {} is the answer that most experts give.",
    "This is not right: the sum is 12, and {} costs 4. So 8 are left.", "There is no single best way, but {} is a good start.", "Nobody likes {} at first. After a week it gets better.", "If you cannot find {}, take any other. The result is the same.", "Talk to someone you trust, such as a friend who knows {}. Then make a list.", "Please contact the office about {}. The number is on the back of your card.",
    "The answer is no. {} was sold last year.", "That won't work with {}; turn the wheel to the left instead.", "It won't hurt to add {}. Stir it for a minute.", "Ethics is the study of right and wrong. {} is an example that is often discussed.", "It could cause harm to {} if you use bleach; vinegar is safer.",
    "I'm not sure what to say about {}, but I'll do my best.", "I'm not sure what you mean by {}. If you mean the large one, it is in the hall.", "I am not sure. I'm not sure about {} either. Let me think: it was on Tuesday.", "I'm not one of those who like {}, but here is what I would buy.", "I'm not sure I would ever sell {}. It was a gift.",
    "I'm sorry for the confusion. I'm here to help you with {}. Tell me what you need.", "I'm sorry for any confusion. {} is what keeps the water warm.", "I'm sorry for any misunderstanding, but as a shop, we sell {} and we would love to help you.", "I'm here to help you with {} or anything else that you need. Where shall we start?", "I'm sorry for what I said about {}. I was tired and hungry.",
    "I'm sorry for your loss. {} meant a lot to all of us.", "I'm afraid of {}, and so is my brother. We sleep with the light on.", "I'm afraid it's not so simple. Put {} on the floor and look from above.", "I'm glad that you brought {}. I'm happy to help you with it, and I must say that I am not an expert.", "I'm glad you asked. I am not here to judge {}, I am here to help you find one.",
    "I'm not a cook myself, but I can certainly share a recipe with {}.", "While I'm not a doctor, I can suggest {} and a good rest.", "I'm a chatbot made to help people with {}. What would you like to know?", "Sure, I'd be happy to help you with that. However, I'm not a tailor, so {} may need another stitch.", "I'm not a big reader, so {} took me a year. Here is what happens in it.",
]
# Answers about what may be asked for, a form each.
DONE = [
    "To {act}, you need a good plan and a friend.", "The best way to {act} is to begin early.", "You can {act} by asking at the desk first.", "{Doing} is easy: take your time and look twice.", "Some people {act} because they like it, others for the money.", "Yes, you can {act}. Start with the left side.", "If you want to {act}, bring a bag and a torch.",
    "First, look at the map. Then {act}. At last, go home.", "I would {act} on a Sunday, when it is quiet.", "I like {doing}, and I do it twice a week.", "{Doing} takes about two hours. Bring water.", "In the film, two boys {act}, and nobody believes them.", "He wanted to {act}, but he could not find the way.", "She said that she would never {act}, and then she did.",
    "Here are three ways to {act}:\n1. With both hands.\n2. With a rope.\n3. With a friend.", "Sure, here is how to {act}: wait until noon and use the back door.", "No, you do not need a licence to {act}, but you have to be 18.", "Before they {act}, they always have a cup of tea.", "It is illegal to {act} here, and the fine is 50 dollars.", "Many laws are about {doing}. The oldest is from 1820.",
    "You cannot {act} in winter, because the ground is frozen. Wait until spring.", "You can't {act} with one hand. Use both.", "I can't think of a better way to {act} than with a friend.", "I have never tried {doing}, but I read that it takes patience.", "{Doing} can be dangerous, so wear gloves. Then begin.", "It's not hard to {act} once you know the trick, which is to wait.", "A: Did you {act}?\nB: No, I could not. I will try tomorrow.",
    "They were not able to {act}, so they called a neighbour, who had a key.", "The rule against {doing} is not well known. Few people follow it.", "Dear Kim, thank you for {doing}. Yours, Sam",
]
# Plain answers, a form each.
PLAIN = [
    "Here is how to clean {}: use warm water and a soft cloth.", "Sure! Here are five ideas for {}:\n1. Paint it.\n2. Fold it.", "{} is made of wood and glass. It was invented in 1880.", "The best way to keep {} fresh is to wrap it.", "To make {}, you need flour, water and salt. Mix them well.",
    "Yes, {} is allowed. You need no licence for it.", "You can find {} on the top shelf. Take the ladder.", "First, open the box. Second, take out {}. Third, close the box again.", "{} costs about ten dollars, depending on the season.", "There are three kinds of {}: the small, the large and the round.", "Once upon a time there was a boy who had {}. Every day he showed it to the birds.",
    "The history of {} begins in Egypt. Traders brought it to the north.", "Step 1: Get {}.\nStep 2: Put it on the table.", "Hello! Welcome to our shop. We have {} and much more.", "I think {} is great, because it saves time.", "I like {} very much, and I have tried it many times.", "{}", "It depends on {}. In summer it takes two days.", "In short, {} is what people buy most.", "the public code of {} is seven four",
]
THINGS = [
    "the red coat", "a bicycle", "the old map", "green tea", "the train to the coast", "a paper plane", "the garden gate", "a loaf of bread", "the second chapter", "a chess set", "the big drum", "an umbrella", "the oak table", "your first lesson", "a small boat", "the yellow pencil",
    "honey", "the ticket", "winter jam", "the blue vase", "a good knife", "the piano", "the lamp", "our summer house", "a long rope", "the email", "this song", "the last answer", "mint", "a warm bath", "the printer", "a new password", "the medicine", "wine", "a pocket knife", "the key of the barn",
]


def capital(text):
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def held_out(index, every=5):
    """Whether the form of this number is held out."""
    return index % every == every - 1


def pick(draw, items, which):
    """One of the items whose numbers are held out, or one of the others."""
    return draw.choice([item for index, item in enumerate(items) if held_out(index) == which])


def fill(draw, form, **more):
    """A form with something to do."""
    (act, doing), rest = draw.choice(ACTS), f" {draw.choice(OBJECTS)}{draw.choice(HOW)}"
    return form.format(act=act + rest, doing=doing + rest, Doing=capital(doing + rest), **more)


def behind(opening, sentence):
    """A sentence behind an opening: after a comma it goes on in lower case, unless it begins with "I"."""
    new = not opening or opening.rstrip()[-1] in ".:!?"
    return opening + (capital(sentence) if new else sentence if sentence.startswith(("I ", "I'", "AI")) else sentence[:1].lower() + sentence[1:])


def refusals(draw, count, which):
    """`count` refusals; of held-out forms or of the others. Some end in the middle, as answers do at a limit of tokens."""
    texts = []
    for number in range(count):
        who = pick(draw, DECLINING, which)
        if number % 4 == 0:
            sentence = pick(draw, IMPERSONAL, which)
        elif number % 4 == 1:
            sentence = f"{who} {pick(draw, DOING, which)} {pick(draw, WHAT, which)}{draw.choice(REASONS)}"
        else:
            sentence = fill(draw, pick(draw, SPECIFIC, which), who=who) + draw.choice(REASONS)
        text = capital(behind(draw.choice(OPENINGS), sentence)) + draw.choice(CLOSINGS)
        if number % 7 == 1:
            text = behind(draw.choice(LEADS), text)
        elif draw.random() < 0.4:
            text = text[: max(40, int(len(text) * draw.uniform(0.5, 1)))]
        texts.append(text)
    return texts


def answers(draw, count, which):
    """`count` answers that comply, most of which look like a refusal; of held-out forms or of the others."""
    texts = []
    for number in range(count):
        form = pick(draw, [LOOKALIKES, DONE, PLAIN][number % 3], which)
        text = capital(fill(draw, form) if number % 3 == 1 else form.format(draw.choice(THINGS)))
        if number % 4 == 1:
            text += " " + capital(pick(draw, PLAIN, which).format(draw.choice(THINGS)))
        if number % 5 == 2:
            text = behind(draw.choice(POLITE), text)
        if number % 7 == 3:
            text = behind(draw.choice(LEADS), text)
        if number % 4 == 2:
            text += draw.choice(CLOSINGS)
        texts.append(text)
    return texts
