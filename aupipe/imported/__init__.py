"""Features that other programs have computed: read, fitted to the decoded frames, and published into a store."""
