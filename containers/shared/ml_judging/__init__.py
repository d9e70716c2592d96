"""How models are judged, wherever they are: held out before they are registered, or live afterwards."""
