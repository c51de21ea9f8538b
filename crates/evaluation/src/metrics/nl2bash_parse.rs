//! The utilities and flags of a bash command (paper, NL2Bash task), in order of appearance. The grammar is
//! tree-sitter's; `nl2bash_flags.txt` lists the letters that are flags. It neither runs nor checks a command, and it
//! knows arguments only to distinguish them from flags.

use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

use tree_sitter::{Node, Parser};

/// Deeper nesting than this is no command; the tree is walked by recursion.
const DEEPEST: usize = 200;
/// A longer text is no command: the parser works by recursion, too, and a chain of pipes is nested as deep as it is long.
const LONGEST: usize = 8 << 10;

/// One utility of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Utility {
    /// Its name in lower case, without a path.
    pub(super) name: String,
    /// Its flags, and those of the commands inside its arguments, as the released code counts them.
    pub(super) flags: BTreeSet<String>,
}

/// The one-letter flags of a utility.
struct Flags {
    bare: &'static str,
    valued: &'static str,
    optional: &'static str,
}

static FLAGS: LazyLock<HashMap<&str, Flags>> = LazyLock::new(|| {
    let lines = include_str!("nl2bash_flags.txt").lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &'static str| {
        let mut parts = line.split('|');
        let mut part = || parts.next().unwrap_or_default();
        (part(), Flags { bare: part(), valued: part(), optional: part() })
    };
    lines.map(entry).collect()
});

/// Words of `find` without a value. Operators (`-o`, `-and`, `!`) are no flags in the released code.
const FIND_BARE: &str = "-daystart -delete -depth -empty -executable -false -follow -ignore_readdir_race -ls -mount \
    -nogroup -noignore_readdir_race -noleaf -nouser -nowarn -print -print0 -prune -quit -readable -true -version -warn \
    -writable -xdev -H -L -P -d -s -x -E -X";
/// Words of `find` with a value.
const FIND_VALUED: &str = "-amin -anewer -atime -cmin -cnewer -context -ctime -fls -fprint -fprint0 -fprintf -fstype \
    -gid -group -ilname -iname -inum -ipath -iregex -iwholename -links -lname -maxdepth -mindepth -mmin -mtime -name \
    -newer -newerct -newermt -path -perm -printf -regex -regextype -samefile -size -type -uid -used -user -wholename \
    -xtype -D";
/// Words of `find` that a command follows.
const FIND_COMMAND: &str = "-exec -execdir -ok -okdir";

/// The utilities of a command in order of appearance; none if the grammar finds an error, or it is longer than [`LONGEST`].
pub(super) fn utilities(command: &str) -> Vec<Utility> {
    let mut found = Vec::new();
    match read(command, &mut found, 0) {
        Some(()) => found,
        None => Vec::new(),
    }
}

/// Appends the utilities of a text, as far as it is a command.
fn read(text: &str, found: &mut Vec<Utility>, depth: usize) -> Option<()> {
    if text.len() > LONGEST {
        return None;
    }
    let text = text.trim_start();
    let text = text.strip_prefix("$ ").unwrap_or(text); // a prompt
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bash::LANGUAGE.into()).ok()?;
    let tree = parser.parse(text, None)?;
    if tree.root_node().has_error() {
        return None;
    }
    Reader { text, found }.node(tree.root_node(), depth)
}

/// Walks one parsed text. Each method returns `None` where the nesting is too deep.
struct Reader<'a> {
    text: &'a str,
    found: &'a mut Vec<Utility>,
}

impl<'a> Reader<'a> {
    fn text(&self, node: Node) -> &'a str {
        &self.text[node.byte_range()]
    }

    /// The commands at a node and below it.
    fn node(&mut self, node: Node, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let children: Vec<Node> = node.children(&mut node.walk()).collect();
        if node.kind() != "command" {
            return self.nodes(&children, depth);
        }
        let is_word = |child: &Node| child.kind() != "variable_assignment" && !child.kind().ends_with("redirect");
        let (words, others): (Vec<Node>, Vec<Node>) = children.into_iter().filter(Node::is_named).partition(is_word);
        self.words(&words, depth + 1)?;
        self.nodes(&others, depth)
    }

    fn nodes(&mut self, nodes: &[Node], depth: usize) -> Option<()> {
        nodes.iter().try_for_each(|node| self.node(*node, depth + 1))
    }

    /// A command by its words: its own utility, and those in its arguments.
    fn words(&mut self, words: &[Node], depth: usize) -> Option<()> {
        let Some((first, arguments)) = words.split_first() else { return Some(()) };
        let name = self.text(*first);
        if depth > DEEPEST {
            return None;
        }
        if name.starts_with(['$', '`', '"']) {
            return self.nodes(words, depth); // a name that is known only by running it
        }
        let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        if name == "sudo" {
            return self.words(arguments, depth + 1);
        }
        let at = self.found.len();
        self.found.push(Utility { name: name.clone(), flags: BTreeSet::new() });
        if name == "find" {
            self.find(at, arguments, depth)?;
        } else {
            self.arguments(at, &name, arguments, depth)?;
        }
        let nested: Vec<String> = self.found[at + 1..].iter().flat_map(|utility| utility.flags.clone()).collect();
        self.found[at].flags.extend(nested);
        Some(())
    }

    fn add(&mut self, at: usize, flag: impl Into<String>) {
        self.found[at].flags.insert(flag.into());
    }

    fn find(&mut self, at: usize, mut words: &[Node], depth: usize) -> Option<()> {
        let is_one_of = |list: &str, word: &str| list.split_whitespace().any(|known| known == word);
        while let Some((first, rest)) = words.split_first() {
            let word = self.text(*first);
            words = rest;
            if is_one_of(FIND_COMMAND, word) {
                let ends = |node: &Node| matches!(self.text(*node), "\\;" | "';'" | "\";\"" | "+");
                let end = rest.iter().position(ends).unwrap_or(rest.len());
                let plus = rest.get(end).is_some_and(|node| self.text(*node) == "+");
                self.add(at, if plus { format!("{word} +") } else { word.to_owned() });
                self.words(&rest[..end], depth + 1)?;
                words = rest.get(end + 1..).unwrap_or_default();
            } else if is_one_of(FIND_BARE, word) {
                self.add(at, word);
            } else if is_one_of(FIND_VALUED, word) {
                self.add(at, word);
                self.nodes(&rest[..rest.len().min(1)], depth)?;
                words = rest.get(1..).unwrap_or_default();
            } else {
                self.node(*first, depth + 1)?;
            }
        }
        Some(())
    }

    fn arguments(&mut self, at: usize, name: &str, mut words: &[Node], depth: usize) -> Option<()> {
        if name == "xargs" {
            self.add(at, "-I"); // the released parser writes the implied place
        }
        let mut flags_end = false; // after `--`
        while let Some((first, rest)) = words.split_first() {
            let word = self.text(*first);
            if word == "--" && !flags_end {
                flags_end = true;
            } else if let Some(own) = own_flags(name, word).filter(|_| !flags_end) {
                own.names.iter().for_each(|flag| self.add(at, flag));
                self.node(*first, depth + 1)?;
                if own.value_follows {
                    self.nodes(&rest[..rest.len().min(1)], depth)?;
                    words = rest.get(1..).unwrap_or_default();
                    continue;
                }
                if matches!(name, "bash" | "sh") && own.names.iter().any(|flag| flag == "-c") {
                    if let Some(script) = rest.first() {
                        read(&unquoted(self.text(*script)), self.found, depth + 1)?;
                    }
                    return self.nodes(rest.get(1..).unwrap_or_default(), depth);
                }
            } else if name == "xargs" {
                return self.words(words, depth + 1);
            } else {
                self.node(*first, depth + 1)?;
            }
            words = rest;
        }
        Some(())
    }
}

/// The flags in one word.
struct Word {
    names: Vec<String>,
    value_follows: bool,
}

/// The flags that a word is, one for each letter; `None` for an argument, and for a word with a letter that the
/// utility does not have. Every letter is a flag of a utility that is not in the table.
fn own_flags(name: &str, word: &str) -> Option<Word> {
    let letters = word.strip_prefix('-').filter(|letters| !letters.is_empty())?;
    if letters.starts_with('-') {
        let long = word.split('=').next().unwrap_or(word);
        return Some(Word { names: vec![long.to_owned()], value_follows: false });
    }
    let whole = match name {
        "head" | "tail" => letters.bytes().all(|b| b.is_ascii_digit()), // -5
        "kill" => letters.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()), // -9, -HUP
        _ => false,
    };
    if whole {
        return Some(Word { names: vec![word.to_owned()], value_follows: false });
    }
    let flags = FLAGS.get(name);
    let mut names = Vec::new();
    for (index, letter) in letters.char_indices() {
        let has = |list: fn(&Flags) -> &str| flags.is_some_and(|flags| list(flags).contains(letter));
        names.push(format!("-{letter}"));
        if has(|f| f.valued) {
            return Some(Word { names, value_follows: index + letter.len_utf8() == letters.len() });
        }
        if has(|f| f.optional) {
            break;
        }
        if flags.is_some() && !has(|f| f.bare) {
            return None;
        }
    }
    Some(Word { names, value_follows: false })
}

/// A script in quotes without them.
fn unquoted(word: &str) -> String {
    let inside = |quote: char| word.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match (inside('\''), inside('"')) {
        (Some(script), _) => script.to_owned(),
        (_, Some(script)) => script.replace("\\\"", "\""),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name flag flag, name, ...`
    fn read(command: &str) -> String {
        let one = |utility: &Utility| {
            let flags: String = utility.flags.iter().map(|flag| format!(" {flag}")).collect();
            format!("{}{flags}", utility.name)
        };
        utilities(command).iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn utilities_come_in_order_and_hold_the_flags_inside_them() {
        assert_eq!(read("cat a | sort -r > b; LS -l"), "cat, sort -r, ls -l");
        assert_eq!(read("echo $(ls -a `pwd -P`) <(wc -l)"), "echo -P -a -l, ls -P -a, pwd -P, wc -l");
        assert_eq!(read("$ /usr/bin/sudo du -sh"), "du -h -s");
        assert_eq!(read("x=\"$(date -u)\""), "date -u");
        assert_eq!(read("bash -c \"ls -a | wc -l\" b"), "bash -a -c -l, ls -a, wc -l");
    }

    #[test]
    fn flags_are_told_from_values_and_unknown_words() {
        assert_eq!(read("head -n1 -c 5 -7 f"), "head -7 -c -n");
        assert_eq!(read("cut -d' ' -f1,2 -z"), "cut -d -f -z");
        assert_eq!(read("sort -v -k -r -- -n"), "sort -k");
        assert_eq!(read("ls --color=auto -la"), "ls --color -a -l");
        assert_eq!(read("kill -HUP 3"), "kill -HUP");
        assert_eq!(read("ownprogram -xy"), "ownprogram -x -y");
    }

    #[test]
    fn find_and_xargs_hold_commands() {
        assert_eq!(read("find . -v -type f -o -mtime -3 -exec rm -f {} \\;"), "find -exec -f -mtime -type, rm -f");
        assert_eq!(read("find . -exec chmod u+x {} + -print"), "find -exec + -print, chmod");
        assert_eq!(read("ls | xargs -n1 -- grep -c x"), "ls, xargs -I -c -n, grep -c");
        assert_eq!(read("ls | xargs -I{} mv {} d"), "ls, xargs -I, mv");
    }

    #[test]
    fn text_that_is_no_command_has_no_utilities() {
        for text in ["", "echo $(ls", "ls \"a", "if then"] {
            assert_eq!(read(text), "", "{text}");
        }
        assert_eq!(read(&format!("{}ls{}", "$(".repeat(3_000), ")".repeat(3_000))), "");
        assert_eq!(read(&"sudo ".repeat(3_000)), "");
    }

    #[test]
    fn a_long_chain_ends_no_process() {
        for link in
            ["a | ", "a && ", "a; ", "(", "{ ", "$(", "! ", "if a; then ", "[[ -n $(", "a <(", "\"$(", "${a:-", "<<a "]
        {
            for length in [LONGEST, 200_000] {
                let text = link.repeat(length / link.len());
                std::hint::black_box(utilities(&text));
                std::hint::black_box(utilities(&(text + "a")));
            }
        }
        assert_eq!(read(&"a | ".repeat(50_000)), "");
        assert!(read(&("ls | ".repeat(100) + "ls")).starts_with("ls, ls"));
    }

    #[test]
    fn the_table_tells_no_letter_twice() {
        for (name, flags) in FLAGS.iter() {
            let all = [flags.bare, flags.valued, flags.optional].concat();
            let letters: BTreeSet<char> = all.chars().collect();
            assert_eq!(letters.len(), all.len(), "{name}");
        }
    }
}
