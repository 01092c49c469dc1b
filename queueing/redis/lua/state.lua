-- with state
return state()
