#![no_main]
use finetune::hostile::{read_checkpoint, sound_checkpoint};
fuzz::target!(fuzz::Format::new(
    "training checkpoint",
    vec![sound_checkpoint().expect("a sound checkpoint is written")],
    |bytes| read_checkpoint(bytes).map_err(|error| error.to_string())
));
