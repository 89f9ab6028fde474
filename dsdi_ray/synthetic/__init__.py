"""A seeded synthetic archive: aerial scenes, crowd answers, clips and exact relevance."""
