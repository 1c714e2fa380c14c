"""The contract between link and vault: `vault.proto`, its generated code, `messages`."""
