"""Uses a trained model: recognizes the emotions of dialogues, and replies with an emotion."""
