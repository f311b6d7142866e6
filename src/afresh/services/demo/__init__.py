"""The demonstration: data sets made on the spot, three trainings and a page that shows them."""
