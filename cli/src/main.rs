mod source;

fn main() {}
