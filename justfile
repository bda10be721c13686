# Each verb is one plain command that also works without just.

# What CI refuses first: lints, on every target.
check:
    cargo clippy --workspace --all-targets -- -D warnings

# Everything: installs what is missing, formatting, lints, all tests.
test:
    scripts/test

# Tollgate beside its peers, in one run.
bench:
    cargo run --profile nolto --package bench -- run

# Writes the generated pages below docs/ again.
generate:
    cargo run --package tollgate -- schema docs

# The whole gateway with a built-in identity provider and a scripted model; needs nothing.
demo:
    cargo run --package tollgate -- demo --tour
