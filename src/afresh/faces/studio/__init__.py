"""The studio: pages on which a person makes, keeps and looks at what the models of a server draw."""
