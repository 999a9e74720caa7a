"""The versions that the contract knows of itself."""

# Version of the .proto files as a whole: minor when something is added, major when something changes its meaning.
CONTRACT_VERSION = "1.5.0"

# What an event written here carries: the lowest contract version able to interpret the fields it sets.
SCHEMA_VERSION = "1.0.0"

# A higher major may have changed what a field means: storing it would be storing what nobody here understood.
SCHEMA_MAJOR_MAX = 1
