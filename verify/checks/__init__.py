"""One module a check; each brings ``CHECK``. ``verify.registry`` finds them."""
